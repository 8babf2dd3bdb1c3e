from .elections import Elections
from .fleet import Fleet
from .reporter import Reporter

class Core:
    elections: Elections
    fleet: Fleet
    reporter: Reporter
    def __init__(
        self,
        *,
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
        drain_ns: int = 0,
        notifies_drains: bool = False,
        balanced: bool = False,
        move_ns: int = 0,
        fleet_slot: int = 0,
        is_cluster: bool = False,
    ) -> None: ...
    def add_lane(self) -> int: ...
    def enter_cluster(self) -> None: ...
    def name_lane(self, index: int, address: bytes) -> None: ...
    def listen(self, index: int) -> None: ...
    def map_slots(self, first: int, last: int, lane: int | None) -> None: ...
    def refresh_all(self) -> None: ...
    def watch_lateness(self) -> None: ...
    @property
    def lateness_ns(self) -> list[tuple[int, int]]: ...
    @property
    def quiet_since_ns(self) -> int | None: ...
