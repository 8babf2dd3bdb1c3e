"""What the seeds of fuzzing, and the tests of split replies, were made of is what servers say."""

from __future__ import annotations

import json

import pytest
from proof.fuzz.recording import FORMS, record, recorded

from multielect.embedded import bundled_binary


@pytest.mark.skipif(bundled_binary() is None, reason="the server that is bundled is not installed")
def test_a_real_server_says_what_was_recorded() -> None:
    assert json.loads(json.dumps(record())) == {
        form: [[data.decode("latin-1") for data in turn] for turn in recorded(form)]
        for form in FORMS
    }
