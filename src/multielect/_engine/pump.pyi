from .._core.core import Core
from .._runtime.clock import Clock

OUTCOMES: tuple[str, ...]

class Pump:
    error_number: int
    waited_ns: int
    def __init__(
        self,
        core: Core,
        clock: Clock,
        *,
        wake_fd: int,
        wake_end_fd: int,
        notify_fd: int,
        response_timeout_ns: int,
    ) -> None: ...
    def wake(self) -> None: ...
    def interrupt(self) -> None: ...
    def stop_by(self, at_ns: int) -> None: ...
    def close(self) -> None: ...
    def heard(self) -> None: ...
    def run(self, fd: int, listener: int) -> str: ...
