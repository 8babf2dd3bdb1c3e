"""Credential providers: the user's code, on a thread that may wait for it.

Rules of this file:
    * A provider is asked before a connection is opened: the time it takes is not the server's.
    * It runs on a thread of its own. Whoever connects waits for it no longer than for an answer of
      the server, says so, and finds the same call under way the next time.
    * What it raises, or returns that is no user and password, is told as its own failure, and never
      with what it returned: that may be a secret.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from redis.credentials import CredentialProvider

from .._runtime.foreign import in_words
from .endpoint import Endpoint


class PatientProvider(CredentialProvider):
    """Hands on what a provider of the user's answered when it was last asked."""

    def __init__(self, provider: CredentialProvider, endpoint: Endpoint, timeout_s: float) -> None:
        """Keep whom to ask, and how long to wait for an answer."""
        self._provider = provider
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._call: _Call | None = None
        self._found: Any = ()

    def ask(self) -> None:
        """Ask the provider, or wait for what it was asked before. On the connector's thread.

        Raises:
            ConnectionLostError: if it fails, or takes longer than the timeout.
        """
        if self._call is None:
            try:
                self._call = _Call(self._provider)
            except RuntimeError as cause:
                raise self._endpoint.unreachable(
                    f"there is no thread for the credential provider: {cause}"
                ) from cause
        call = self._call
        if not call.ended.wait(self._timeout_s):
            raise self._endpoint.unreachable(
                f"the credential provider has not answered for {call.lasts_s:.1f} s",
                "It is waited for",
            )
        self._call = None
        if call.failure is not None:
            raise self._endpoint.unreachable(
                f"the credential provider failed: {in_words(call.failure)}", "It is asked again"
            ) from call.failure
        self._found = call.found

    def get_credentials(self) -> Any:  # noqa: ANN401  # as the provider's own
        """Return what it answered last."""
        return self._found


class _Call:
    """One call of a provider, under way from when it is made."""

    def __init__(self, provider: CredentialProvider) -> None:
        self._provider = provider
        self._began_s = time.monotonic()
        self.ended = threading.Event()
        self.found: Any = ()
        self.failure: BaseException | None = None
        threading.Thread(target=self._run, name="multielect-credentials", daemon=True).start()

    @property
    def lasts_s(self) -> float:
        return time.monotonic() - self._began_s

    def _run(self) -> None:
        try:
            self.found = _checked(self._provider.get_credentials())
        # Also SystemExit and its like: there is nothing here for them to end.
        except BaseException as cause:  # noqa: BLE001
            self.failure = cause
        self.ended.set()


def _checked(found: Any) -> Any:  # noqa: ANN401  # as a provider's own
    if isinstance(found, (tuple, list)) and all(isinstance(each, (str, bytes)) for each in found):
        return found
    raise TypeError(f"it returned {type(found).__qualname__}, not a tuple of user and password")
