"""What is shown fits 80 columns, and nothing but text goes into a pipe."""

from __future__ import annotations

import io

from rich.console import Console

from multielect.cli.demo.view import LiveView, NodeState, PlainView, Snapshot, picture, view_for

LONG = "node-3 is frozen (SIGSTOP) while it leads 1,348, with 58 commits about to be sent"


def snapshot(elapsed_s: float = 10.0) -> Snapshot:
    return Snapshot(
        elapsed_s=elapsed_s,
        events=336_776,
        committed=168_388,
        per_second=8_419.4,
        refused=58,
        leads={"node-2": 2_956, "node-3": 1_000},
        leaderless=88,
        states={
            "node-1": NodeState.KILLED,
            "node-2": NodeState.RUNNING,
            "node-3": NodeState.FROZEN,
        },
    )


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return (
        Console(
            file=written,
            force_terminal=terminal,
            width=80,
            height=25,
            highlight=False,
            legacy_windows=False,
            _environ={"TERM": "xterm"},
        ),
        written,
    )


def test_a_pipe_gets_plain_lines() -> None:
    pipe, written = console(terminal=False)
    with view_for(pipe) as view:
        assert isinstance(view, PlainView)
        view.say(6.28, LONG)
        view.show(snapshot())

    assert written.getvalue() == (
        "   6.3 s  node-3 is frozen (SIGSTOP) while it leads 1,348, with 58 commits\n"
        "          about to be sent\n"
        "  10.0 s  168,388 of 336,776 events, 8,419/s; led: 0, 2,956, 1,000\n"
    )


def test_a_pipe_is_not_flooded() -> None:
    pipe, written = console(terminal=False)
    view = PlainView(pipe)
    for tenth in range(50):
        view.show(snapshot(tenth / 10))

    assert [line.split()[0] for line in written.getvalue().splitlines()] == ["0.0", "2.0", "4.0"]


def test_a_terminal_gets_a_picture_of_all_nodes() -> None:
    terminal, written = console(terminal=True)
    with view_for(terminal) as view:
        assert isinstance(view, LiveView)
        view.say(6.28, LONG)
        view.show(snapshot())
        view.say(7.0, "that was it")

    shown = written.getvalue()
    for words in (
        "about",
        "node-1",
        "killed (kill -9)",
        "2,956",
        "frozen (SIGSTOP)",
        "88  without a leader",
        "50 %  8,419/s",
        "168,388 of 336,776 events committed",
        "58 late commits refused",
    ):
        assert words in shown


def test_the_picture_fits_80_columns() -> None:
    plain, written = console(terminal=False)
    plain.print(picture(snapshot()))

    lines = written.getvalue().splitlines()
    assert len(lines) == 7, "a line that is too long would be wrapped"
    assert max(map(len, lines)) <= 80
