"""One node: a process with an election group, a worker and a sampler.

Rules of this file:
    * It reads commands from its standard input: first a `NodeSpec` as a line of JSON, then single
      words. It reports its progress on its standard output. Its log goes to standard error.
    * It never outlives the conductor: the kernel kills it, or, if the kernel cannot, the end of its
      standard input ends it.
    * SIGTERM stops it cleanly: it drains first, so that the others take over its elections one
      after another. The command `end` only releases, as nobody is left to take over.
    * Callbacks only write a record and append to a queue.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from multielect import DemotionReason, ElectionGroup, MultielectError, Term
from multielect._runtime.clock import Clock
from multielect.fencing import Outcome

from .beliefs import BeliefLog, Kind
from .checkpoint import CheckpointStore, connect
from .sampler import Sampler
from .stream import EventStream, Replay
from .worker import Freeze, Worker

RECORDS_AN_ELECTION = 64
MIN_RECORDS = 65_536

JOIN_DELAY_SECONDS = 0.2
"""Lets nodes that start together get their shares together."""

DRAIN_SECONDS = 8.0
"""How long a stop waits for the worker and the successors; the conductor waits longer."""

_PR_SET_PDEATHSIG = 1

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeSpec:
    """The settings of a node.

    Attributes:
        url: the URL of the Redis server.
        prefix: the prefix of the election group.
        node: this node's id.
        ttl: the TTL of the leases, in seconds.
        stream: the file with the events.
        beliefs: the file for its beliefs.
        span_ns: how long the stream lasts.
        conductor: the process id of the conductor.
    """

    url: str
    prefix: str
    node: str
    ttl: float
    stream: str
    beliefs: str
    span_ns: int
    conductor: int

    def to_line(self) -> str:
        """Return the spec as one line of JSON."""
        return json.dumps(asdict(self))


def main() -> None:
    """Be a node until SIGTERM, or until the conductor is gone."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    spec = NodeSpec(**json.loads(sys.stdin.readline()))
    _die_with(spec.conductor)
    # Every thread inherits the mask, so that the main thread alone waits for the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    _Node(spec).run()


class _Node:
    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec
        self._now_ns = Clock().now_ns
        self._stream = EventStream.open(Path(spec.stream))
        elections = len(self._stream.keys)
        self._log = BeliefLog(Path(spec.beliefs), max(MIN_RECORDS, RECORDS_AN_ELECTION * elections))
        self._numbers = {key: number for number, key in enumerate(self._stream.keys)}
        self._group = ElectionGroup(
            spec.url,
            prefix=spec.prefix,
            ttl=spec.ttl,
            node_id=spec.node,
            on_elected=self._on_elected,
            on_demoted=self._on_demoted,
            on_draining=self._on_draining,
            on_error=_on_error,
            balance=True,
            join_delay=JOIN_DELAY_SECONDS,
            # The callbacks are too short to gain from more threads.
            callback_threads=1,
        )
        self._group.add_many(self._stream.keys)
        self._sampler = Sampler(
            self._log, [(number, self._group[key]) for key, number in self._numbers.items()]
        )
        self._freeze = Freeze(self._now_ns, self._stop_process, self._went_on)
        self._failed = False
        self._has_successors = True

    def run(self) -> None:
        """Take part from the conductor's go until SIGTERM."""
        client = connect(self._spec.url)
        store = CheckpointStore(client, self._spec.prefix, self._stream.keys)
        # No object here is part of a cycle. A collection that walks thousands of terms during a
        # takeover would take up much of its time.
        gc.disable()
        _say("ready")
        start_ns = int(_read_line())
        replay = Replay(len(self._stream), start_ns, self._spec.span_ns)
        self._worker = Worker(
            self._spec.node,
            self._stream,
            replay,
            store,
            now_ns=self._now_ns,
            freeze=self._freeze,
        )
        self._group.start()
        self._sampler.start()
        working = threading.Thread(target=self._work, name="worker")
        working.start()
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        signal.sigwait({signal.SIGTERM})
        # Without a worker, each term would drain until its deadline.
        if self._has_successors and not self._failed:
            self._group.drain(DRAIN_SECONDS)
        self._worker.stop()
        working.join()
        self._group.stop()
        self._sampler.close()
        client.close()
        if self._failed:
            sys.exit(1)

    def _on_elected(self, term: Term) -> None:
        written_ns = self._now_ns()
        election = self._numbers[term.key]
        assert term.began_ns is not None
        self._log.write(
            Kind.ELECTED, election, term.epoch, belief_ns=term.began_ns, written_ns=written_ns
        )
        self._worker.elected(election, term)

    def _on_draining(self, term: Term, _deadline: float) -> None:
        self._worker.draining(self._numbers[term.key], term)

    def _on_demoted(self, term: Term, reason: DemotionReason) -> None:
        assert term.ended_ns is not None
        self._log.write(
            Kind.DEMOTED,
            self._numbers[term.key],
            term.epoch,
            belief_ns=term.ended_ns,
            written_ns=self._now_ns(),
            reason=reason.value,
        )

    def _work(self) -> None:
        try:
            self._worker.run()
        except Exception:
            _logger.exception("the worker failed")
            self._failed = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _listen(self) -> None:
        while True:
            match _read_line():
                case "freeze":
                    self._freeze.ask()
                case "end":
                    self._has_successors = False
                    os.kill(os.getpid(), signal.SIGTERM)

    def _stop_process(self, commits: int) -> None:
        _say(f"freezing {commits}")
        # The signal is for this thread: a signal to the process would stop another thread first,
        # and this one might send its commits before it stops too. The call keeps the GIL, so this
        # thread also runs first afterwards. Its look would see a belief that outlasted its lease.
        getattr(ctypes.PyDLL(None), "raise")(signal.SIGSTOP)
        self._sampler.look_at_all()

    def _went_on(self, outcomes: list[Outcome]) -> None:
        refused = sum(outcome.is_stale for outcome in outcomes)
        _say(f"thawed {refused} {sum(outcome.is_written for outcome in outcomes)}")


def _on_error(error: MultielectError) -> None:
    _logger.warning("%s: %s", type(error).__name__, error)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _read_line() -> str:
    line = sys.stdin.readline()
    if not line:
        # The conductor is gone, so no other node waits for the leases.
        os._exit(1)
    return line.strip()


def _die_with(conductor: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != conductor:
        os._exit(1)


if __name__ == "__main__":
    main()
