from typing_extensions import Buffer

from .core import Core

class FleetCore(Core):
    def __init__(
        self,
        *,
        drain_ns: int = 0,
        notifies_drains: bool = False,
        balanced: bool = False,
        move_ns: int = 0,
        now_ns: int,
        ttl_ns: int,
        margin_ns: int,
        key_prefixes: tuple[bytes, ...],
        separator: bytes,
        holder: bytes,
        channel: bytes,
        epochs: bytes = b"time",
        max_leases: int = 0xFFFFFFFF,
        batch_keys: int = 250,
        seed: int = 0,
        retention_ms: int = 0,
    ) -> None: ...
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
    def take_membership(self) -> bytes | None: ...
    def assign(
        self,
        keys: list[bytes],
        owners: Buffer,
        holders: list[bytes],
        own: int,
        ineligible: Buffer,
        now_ns: int,
    ) -> None: ...
    def watch(self, turn: int, turns: int) -> None: ...
    def other_leaders(self) -> list[tuple[bytes, int, int]]: ...
    def retire(self, alone: bool, until_ns: int, now_ns: int) -> None: ...
    def finish_drain(self, number: int, generation: int, term_epoch: int, now_ns: int) -> bool: ...
