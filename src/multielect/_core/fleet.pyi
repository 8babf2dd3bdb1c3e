from typing_extensions import Buffer

class Fleet:
    def set_membership_poll(
        self,
        words: bytes,
        word_count: int,
        *,
        period_ns: int,
        at_once: bool = True,
        last_ns: int = 0,
    ) -> None: ...
    def poll_membership_by(self, due_ns: int) -> None: ...
    def assign(
        self,
        keys: list[bytes],
        owners: Buffer,
        holders: list[bytes],
        own: int,
        ineligible: Buffer,
        now_ns: int,
    ) -> None: ...
    def probe(self, turn: int, turns: int) -> None: ...
    def other_leaders(self) -> list[tuple[bytes, int, int]]: ...
