"""Interpreters in which multielect would not be safe refuse to import it, and say why.

Rules of this file:
    * Each is tried in a process of its own, so that this one imports nothing twice.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

FREE_THREADED = """
import sysconfig
real = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: 1 if name == "Py_GIL_DISABLED" else real(name)
try:
    import multielect
except ImportError as error:
    print(error)
"""

SUB_INTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        sys.exit("absent")
if sys.argv[1] == "later":
    import multielect
sub = interpreters.create()
interpreters.run_string(sub, '''
try:
    import multielect
except ImportError as error:
    print(error, flush=True)
''')
interpreters.destroy(sub)
from multielect import ElectionGroup
print(len(ElectionGroup("redis://localhost:1", prefix="main")))
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_free_threaded_build_is_refused() -> None:
    done = run(FREE_THREADED)
    assert "does not support free-threaded builds" in done.stdout
    assert "use a build with the GIL" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("when", ["first", "later"])
def test_a_sub_interpreter_is_refused_and_the_main_one_is_not(when: str) -> None:
    done = run(SUB_INTERPRETER, when)
    if done.stderr == "absent\n":
        pytest.skip("this Python has no module for sub-interpreters")
    refusal, elections = done.stdout.splitlines()
    assert "does not support sub-interpreters: import it in the main interpreter" in refusal
    assert elections == "0"
    assert (done.stderr, done.returncode) == ("", 0)
