from .._clock import Clock
from .slots import Slots

class Seat:
    number: int
    generation: int
    term_epoch: int
    def __init__(
        self, slots: Slots, clock: Clock, number: int, generation: int, term_epoch: int = 0
    ) -> None: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def epoch(self) -> int: ...
    @property
    def remaining(self) -> float: ...
    @property
    def is_removed(self) -> bool: ...
