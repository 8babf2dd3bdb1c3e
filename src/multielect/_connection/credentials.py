"""Credential providers: user code, which runs on its own thread.

Rules of this file:
    * A provider is called before a connection is opened, so its time does not count as the
      server's.
    * It runs on its own thread. The connector waits for it no longer than for an answer of the
      server. If it is late, the attempt fails, and the next attempt waits for the same call.
    * If a provider raises, or returns no user and password, the error names the provider. It never
      shows what the provider returned, which may be a secret.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from redis.credentials import CredentialProvider

from .._runtime.foreign import in_words
from .endpoint import Endpoint


class PatientProvider(CredentialProvider):
    """Returns the last answer of the user's provider."""

    def __init__(self, provider: CredentialProvider, endpoint: Endpoint, timeout_s: float) -> None:
        """Keep the provider, and how long to wait for it."""
        self._provider = provider
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._call: _Call | None = None
        self._found: Any = ()

    def ask(self) -> None:
        """Call the provider, or wait for the call under way. Runs on the connector's thread.

        Raises:
            ConnectionLostError: if the provider fails, or takes longer than the timeout.
        """
        if self._call is None:
            try:
                self._call = _Call(self._provider)
            except RuntimeError as cause:
                raise self._endpoint.unreachable(
                    f"no thread could be started for the credential provider: {cause}"
                ) from cause
        call = self._call
        if not call.ended.wait(self._timeout_s):
            raise self._endpoint.unreachable(
                f"the credential provider has not answered for {call.lasts_s:.1f} s",
                "The node waits for it",
            )
        self._call = None
        if call.failure is not None:
            raise self._endpoint.unreachable(
                f"the credential provider failed: {in_words(call.failure)}", "It is called again"
            ) from call.failure
        self._found = call.found

    def get_credentials(self) -> Any:  # noqa: ANN401  # as the provider's own
        """Return the provider's last answer."""
        return self._found


class _Call:
    """One call of a provider, which begins at once."""

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
        # SystemExit as well: in a thread it would end nothing but this thread.
        except BaseException as cause:  # noqa: BLE001
            self.failure = cause
        self.ended.set()


def _checked(found: Any) -> Any:  # noqa: ANN401  # as a provider's own
    if isinstance(found, (tuple, list)) and all(isinstance(each, (str, bytes)) for each in found):
        return found
    raise TypeError(f"it returned {type(found).__qualname__}, not a tuple of user and password")
