from .records import Report, TermEvent

DRAINING_REASON: int
REQUEST_NAMES: tuple[str, ...]

class Reporter:
    def take(self, *, with_events: bool = True) -> Report: ...
    def take_events(self) -> list[TermEvent]: ...
