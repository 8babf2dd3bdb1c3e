"""The peers: other libraries, each with an adapter in a folder.

Rules of this file:
    * An adapter is a module with one class named `Peer` that has the protocol `Peer` of this file.
      It is made without arguments.
    * A library that is not installed is not an error. The report says what to install.
    * A peer that refreshes one lease after another gets a sample of the leases, because its cost of
      a lease is the same for any number.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..suite import BenchError
from .contenders import Contender, Cost, Stopwatch

DEFAULT_FOLDER = Path("benchmarks/peers")

_INSTALL = "pip install --group peers"


class Peer(Protocol):
    """Another way to hold leases.

    Attributes:
        name: its name in tables, at most 26 characters.
        library: the distribution that it uses, by its name in pip.
        one_by_one: whether each lease takes a round trip of its own.
    """

    name: str
    library: str
    one_by_one: bool

    @property
    def version(self) -> str:
        """The version of the library."""

    def prepare(self, url: str, prefix: str, leases: int, ttl: float) -> None:
        """Take `leases` leases for `ttl` seconds. Their keys begin with `prefix`."""

    def refresh(self) -> None:
        """Extend each lease once, to the whole TTL. Raises any exception if a lease is lost."""

    def close(self) -> None:
        """Close connections. The caller removes the keys."""


@dataclass(frozen=True)
class Peers:
    """The adapters of a folder.

    Attributes:
        kinds: the adapters that can be used.
        missing: the adapters that cannot be used, by name, and why.
    """

    kinds: list[type[Peer]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def load(folder: Path | None) -> Peers:
    """Return the adapters of `folder`, in the order of its files.

    Raises:
        BenchError: if a module is not an adapter.
    """
    found = Peers()
    if folder is None:
        found.missing["the others"] = "their adapters are in benchmarks/peers: see --peers"
        return found
    for path in sorted(folder.glob("[!_]*.py")):
        try:
            found.kinds.append(_loaded(path))
        except ModuleNotFoundError as missing:
            name = path.stem.replace("_", "-")
            found.missing[name] = f"there is no module {missing.name}; install it: {_INSTALL}"
    return found


def _loaded(path: Path) -> type[Peer]:
    spec = importlib.util.spec_from_file_location(f"multielect_peer_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = getattr(module, "Peer", None)
    if not isinstance(kind, type):
        raise BenchError(f"{path} has no class Peer")
    wanted = ("name", "library", "one_by_one", "version", "prepare", "refresh", "close")
    lacking = [name for name in wanted if not hasattr(kind, name)]
    if lacking:
        raise BenchError(f"the class Peer of {path} lacks {', '.join(lacking)}")
    return kind


class PeerContender(Contender):
    """A peer as a contender."""

    def __init__(self, peer: Peer) -> None:
        """Measure this peer. It takes its leases in `prepare`."""
        self._peer = peer
        self._is_prepared = False
        self.name = peer.name
        self.leases = 0

    @property
    def version(self) -> str:
        """The version of its library."""
        return self._peer.version

    def prepare(self, url: str, prefix: str, leases: int, ttl_s: float) -> None:
        """Let the peer take its leases.

        Raises:
            BenchError: if the peer cannot.
        """
        try:
            self._peer.prepare(url, prefix, leases, ttl_s)
        # A peer may raise anything.
        except Exception as error:
            raise BenchError(f"it failed to take leases: {error!r}") from error
        self.leases = leases
        self._is_prepared = True

    def refresh(self) -> Cost:
        """Refresh all leases.

        Raises:
            BenchError: if the peer cannot.
        """
        watch = Stopwatch()
        try:
            self._peer.refresh()
        except Exception as error:
            raise BenchError(f"{self.name} failed to refresh: {error!r}") from error
        return watch.cost()

    def close(self) -> None:
        """Close the peer's connections, if it has prepared any."""
        if self._is_prepared:
            self._peer.close()
