"""The leases that the server granted, extended and ended, from the output of MONITOR.

Rules of this file:
    * The server reports every command that it runs, also inside scripts, in the order in which it
      runs them. So the ledger knows the order of the grants, and when each lease ends.
    * No lease lasts longer than in the ledger. A lease may end earlier if the server loses it.
    * A grant is a leader key that a script sets after it minted an epoch. The lease that a script
      grants to a successor has no epoch, so it does not make a leader.
    * If a script reads a leader key right after it set it, that key was of another type, and the
      script has set nothing.
    * The ledger assumes in the node's favour what happened while MONITOR did not run: see
      `went_blind`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

_MS = 1_000_000

TOLERANCE_NS = 3 * _MS
"""The error of a time: the server counts whole milliseconds, and two clocks are compared."""


@dataclass(frozen=True)
class Grant:
    """A lease that was granted with a new epoch."""

    election: int
    holder: str
    epoch: int
    at_ns: int


@dataclass
class Lease:
    """A time in which the leader key of an election had one holder without a gap."""

    holder: str
    from_ns: int
    to_ns: int


@dataclass(frozen=True)
class Fall:
    """A grant whose epoch was not above that of the grant before."""

    earlier: Grant
    later: Grant


@dataclass
class _Election:
    minted: int = 0
    last: Grant | None = None
    grants: dict[tuple[str, int], Grant] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    before: tuple[Grant | None, list[Lease]] | None = None


class Ledger:
    """Reads the lines of MONITOR. For one thread at a time.

    Attributes:
        falls: the grants whose epochs did not rise.
        marks: the texts of ECHO commands. The ledger has everything that the server did before a
            mark that is here.
        read_to_ns: the time of the last line.
        prefix: the prefix of the keys.
        elections: the number of elections.
    """

    def __init__(self, *, prefix: str, elections: int) -> None:
        self.falls: list[Fall] = []
        self.marks: set[bytes] = set()
        self.read_to_ns = 0
        self.prefix = prefix
        self.elections = elections
        self._elections = [_Election() for _ in range(elections)]
        self._minting: set[int] = set()
        self._blind: list[tuple[int, int]] = []
        head = rb'"' + re.escape(prefix).encode() + rb":\{\d+\}:k"
        self._line = re.compile(
            # The pattern begins with text that is in every line once and is quick to find.
            rb'\] "(?:(?P<time>TIME)"|FLUSHALL"|ECHO" "(?P<mark>[^"]*)"'
            rb'|DEL"(?P<deleted>(?: ' + head + rb'\d+:leader")+)'
            rb'|(?P<command>SET|PEXPIREAT|GET)" '
            + head
            + rb'(?P<number>\d+):(?P<tail>leader|epoch)"'
            rb'(?: "(?P<value>[^"]*)")?(?: "PX" "(?P<px>\d+)")?)'
        )
        self._deleted = re.compile(head + rb'(\d+):leader"')

    def feed(self, lines: bytes, placed: Callable[[int], int]) -> None:
        """Read lines of MONITOR.

        Args:
            lines: complete lines, without the plus signs at their beginning.
            placed: returns the local time in ns for a time of the server in us.
        """
        for match in self._line.finditer(lines):
            at_ns = placed(server_us := _server_us(lines, match))
            if match["command"] is not None:
                self._command(match, at_ns, server_us)
            elif match["deleted"] is not None:
                for number in self._deleted.findall(match["deleted"]):
                    _end(self._elections[int(number)], at_ns)
            elif match["time"] is not None:
                self._begin_script()
            elif match["mark"] is not None:
                self.marks.add(match["mark"])
            else:
                for election in self._elections:
                    _end(election, at_ns)
        last = lines.rfind(b"\n") + 1
        self.read_to_ns = placed(_us(lines[last : lines.index(b" ", last)]))

    def grant(self, election: int, holder: str, epoch: int) -> Grant | None:
        """Return the grant of this epoch to this holder, if there was one."""
        return self._elections[election].grants.get((holder, epoch))

    def grants(self, election: int) -> list[Grant]:
        """Return the grants in order, without those forgotten."""
        return list(self._elections[election].grants.values())

    def leases(self, election: int) -> list[Lease]:
        """Return the leases in order, without those forgotten."""
        return self._elections[election].leases

    def uncovered(self, election: int, holder: str, from_ns: int, to_ns: int) -> tuple[int, int]:
        """Return the last part of a time in which the key did not have `holder`; empty if none.

        A time in which MONITOR did not run counts as if the key had `holder`.
        """
        at_ns = to_ns
        for lease in reversed(self._elections[election].leases):
            if lease.holder != holder or lease.from_ns > at_ns:
                continue
            if lease.to_ns + TOLERANCE_NS < at_ns:
                from_ns = max(from_ns, lease.to_ns)
                break
            at_ns = lease.from_ns - TOLERANCE_NS
            if at_ns <= from_ns:
                return from_ns, from_ns
        return (from_ns, from_ns) if self.is_blind(from_ns, at_ns) else (from_ns, at_ns)

    def is_blind(self, from_ns: int, to_ns: int) -> bool:
        """Return whether commands of that time may be missing."""
        return any(began <= to_ns and from_ns <= ended for began, ended in self._blind)

    def went_blind(self, from_ns: int, to_ns: int, ttl_ns: int) -> None:
        """Note that commands of that time may be missing. Later commands are complete.

        The ledger assumes that each lease of that time was extended at the last moment.
        """
        self._blind.append((from_ns, to_ns + ttl_ns))
        for election in self._elections:
            if election.leases and election.leases[-1].to_ns >= from_ns:
                lease = election.leases[-1]
                lease.to_ns = max(lease.to_ns, to_ns + ttl_ns)

    def take_grants(self, other: Ledger) -> list[Grant]:
        """Add the grants of another server, whose epochs nodes believed too. Returns those grants.

        The leases of that server do not count for I4.
        """
        self.falls += other.falls
        for own, their in zip(self._elections, other._elections, strict=True):
            own.grants.update(their.grants)
        return [grant for their in other._elections for grant in their.grants.values()]

    def forget(self, before_ns: int) -> None:
        """Drop what ended before that time."""
        self.falls.clear()
        self._blind = [blind for blind in self._blind if blind[1] >= before_ns]
        for election in self._elections:
            if len(election.leases) > 1:
                election.leases = [
                    lease
                    for lease in election.leases
                    if lease is election.leases[-1] or lease.to_ns >= before_ns
                ]
            held = {lease.holder for lease in election.leases}
            election.grants = {
                name: grant
                for name, grant in election.grants.items()
                if grant is election.last or grant.at_ns >= before_ns or grant.holder in held
            }

    def _begin_script(self) -> None:
        for number in self._minting:
            self._elections[number].minted = 0
            self._elections[number].before = None
        self._minting.clear()

    def _command(self, match: re.Match[bytes], at_ns: int, server_us: int) -> None:
        command, number, tail, value, px = match.group("command", "number", "tail", "value", "px")
        election = self._elections[int(number)]
        if tail == b"epoch":
            if command == b"SET" and value is not None and value.isdigit():
                election.minted = int(value)
                self._minting.add(int(number))
        elif command == b"GET":
            self._undo(election)
        elif value is not None and command == b"PEXPIREAT":
            lease = election.leases[-1] if election.leases else None
            if lease is not None and lease.to_ns >= at_ns:
                # The expiry is on the server's clock. If that was set forward within the script,
                # the lease has ended at once.
                lease.to_ns = at_ns + max(0, int(value) * 1000 - server_us) * 1000
        elif value is not None:
            self._set(election, int(number), value.decode(), px, at_ns)

    def _set(
        self, election: _Election, number: int, holder: str, px: bytes | None, at_ns: int
    ) -> None:
        if election.minted:
            election.before = election.last, [replace(lease) for lease in election.leases]
        to_ns = at_ns + (1 << 62 if px is None else int(px) * _MS)
        self._hold(election, holder, at_ns, to_ns)
        if election.minted:
            self._grant(election, Grant(number, holder, election.minted, at_ns))

    def _undo(self, election: _Election) -> None:
        """Undo the last grant, as the leader key was of another type."""
        if election.before is None or election.last is None:
            return
        del election.grants[election.last.holder, election.last.epoch]
        election.last, election.leases = election.before

    def _hold(self, election: _Election, holder: str, at_ns: int, to_ns: int) -> None:
        lease = election.leases[-1] if election.leases else None
        if lease is not None and lease.to_ns >= at_ns:
            if lease.holder == holder:
                lease.to_ns = to_ns
                return
            lease.to_ns = at_ns
        election.leases.append(Lease(holder, at_ns, to_ns))

    def _grant(self, election: _Election, grant: Grant) -> None:
        if election.last is not None and grant.epoch <= election.last.epoch:
            self.falls.append(Fall(election.last, grant))
        election.last = grant
        election.grants[grant.holder, grant.epoch] = grant
        election.minted = 0


def _end(election: _Election, at_ns: int) -> None:
    if election.leases:
        lease = election.leases[-1]
        lease.to_ns = min(lease.to_ns, at_ns)


def _server_us(lines: bytes, match: re.Match[bytes]) -> int:
    first = lines.rfind(b"\n", 0, match.start()) + 1
    return _us(lines[first : lines.index(b" ", first)])


def _us(seconds: bytes) -> int:
    return int(seconds.replace(b".", b""))
