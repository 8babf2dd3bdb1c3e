"""Faults in the threads around the core: the engine's and those of the callbacks."""

from __future__ import annotations

from .fault import Edit, Fault

_FORK = ("tests/integration/test_fork.py", "tests/faults")
_CALLBACKS = ("tests/unit", "tests/integration")


def _fault(name: str, about: str, *edits: Edit, suites: tuple[str, ...]) -> Fault:
    return Fault(name, about, edits, suites)


IN_THE_THREADS = (
    _fault(
        "silence-is-patience",
        "a server that does not answer is waited for without end",
        Edit(
            "_engine/pump.pyx",
            "SILENT if self.ports[lane].waited_ns >= self.response_timeout_ns else GOING",
            "GOING",
        ),
        suites=("tests/integration",),
    ),
    _fault(
        "fork-goes-on-leading",
        "the child of a fork believes what its parent leads",
        Edit(
            "_engine/engine.py",
            "os.register_at_fork(after_in_child=_abandon_all)\n",
            "",
        ),
        suites=_FORK,
    ),
    _fault(
        "fork-goes-on-refreshing",
        "the child of a fork refreshes over its parent's connection",
        Edit(
            "_engine/engine.py",
            "    for engine in list(_live):\n        engine.abandon()\n    _live.clear()\n",
            "    for engine in list(_live):\n"
            "        threading.Thread(target=engine._run, daemon=True).start()\n",
        ),
        suites=_FORK,
    ),
    _fault(
        "callbacks-out-of-order",
        "the callbacks of one election may run at once, or overtake each other",
        Edit(
            "_callbacks/mailbox.py",
            "            if queue is None:\n",
            "            if not queue:\n",
        ),
        suites=_CALLBACKS,
    ),
    _fault(
        "demotion-untold",
        "a callback that raises costs the election the news that follow",
        Edit(
            "_callbacks/dispatcher.py",
            "            # SystemExit as well: in a thread it would end nothing but this thread.\n"
            "            except BaseException as cause:  # noqa: BLE001\n"
            "                error = term_event_error(term_event, cause)\n",
            "            except OSError as cause:\n"
            "                error = term_event_error(term_event, cause)\n",
        ),
        suites=_CALLBACKS,
    ),
)
