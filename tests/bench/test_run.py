"""The whole command, on real servers: all its suites, its JSON, and its end in the middle."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from multielect.cli.bench.suites import SUITES

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
MAX_SECONDS = 100.0

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc"
)


def start(*args: str | Path, folder: Path) -> subprocess.Popen[str]:
    """Start it with its temporary files in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "multielect", "bench", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "80"},
    )


def run(*args: str | Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """Run it to its end; it must measure all. Returns what it said, and its figures."""
    figures = folder / "figures.json"
    with start(*args, "--json", figures, folder=folder) as bench:
        said, errors = bench.communicate(timeout=MAX_SECONDS)
    assert bench.returncode == 0, said + errors
    return said, json.loads(figures.read_text())


def assert_sound(told: dict[str, Any]) -> None:
    """Hold every median and every ratio against the values of the rounds."""
    for suite in told["suites"].values():
        place = ("case", "subject", "quantity")
        figures = {tuple(one[name] for name in place): one["rounds"] for one in suite["figures"]}
        assert figures
        for one in suite["figures"] + suite["ratios"] + suite["expected"]:
            assert one["median"] == statistics.median(one["rounds"])
            assert one["least"] <= one["low"] <= one["median"] <= one["high"] <= one["most"]
        for one in suite["ratios"]:
            over, under = (figures[tuple(one[side][name] for name in place)] for side in SIDES)
            assert one["rounds"] == [a / b for a, b in zip(over, under, strict=True)]


SIDES = ("over", "under")


def test_refresh_beside_the_limit_and_the_others(
    tmp_path: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    redis_client.set("of somebody else", "1")
    said, told = run(
        "--suite", "refresh", "--quick", "--leases", "300", "--leases", "600", "--rounds", "3",
        "--peers", PEERS, "--url", redis_url, folder=tmp_path,
    )  # fmt: skip

    assert_sound(told)
    assert list(told["suites"]) == ["refresh"]
    suite = told["suites"]["refresh"]
    subjects = {one["subject"] for one in suite["figures"]}
    assert subjects >= {
        "multielect", "native PEXPIRE, no check", "redis-py pipeline", "redis-py Lock",
        "redis-py asyncio pipeline",
    }  # fmt: skip
    for one in suite["figures"]:
        assert len(one["rounds"]) == 3
        assert one["case"] in ("300 leases", "600 leases")
        assert min(one["rounds"]) > 0 or one["quantity"] == "server CPU"
    assert suite["versions"]["redis"] == redis.__version__
    assert f"redis {redis.__version__}" in said
    # The words that bound a peer must be those by which its adapter is known.
    bounded = {one["what"] for one in suite["ratios"] if "to_reach" in one}
    assert any("redis-py pipeline" in what for what in bounded)
    assert any("redis-py Lock" in what for what in bounded)
    assert any("600 leases against 300 leases" in what for what in bounded)
    assert redis_client.keys() == [b"of somebody else"]
    # The last line has the path of a file, which is as long as it is.
    assert max(map(len, said.splitlines()[:-1])) < 80
    assert "\x1b" not in said
    assert "to reach: at most 1.5 - reached" in said


@pytest.mark.parametrize("name", [suite.name for suite in SUITES if suite.name != "refresh"])
def test_a_suite_alone(name: str, tmp_path: Path) -> None:
    said, told = run("--suite", name, "--quick", "--leases", "500", folder=tmp_path)

    assert_sound(told)
    assert list(told["suites"]) == [name]
    assert f"{name}: {told['suites'][name]['question']}" in said
    assert told["machine"]["server"]
    assert list(tmp_path.glob("multielect*")) == []


def test_others_that_are_not_there_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "some_lock.py").write_text("import some_lock_that_is_nowhere\n")
    said, told = run(
        "--suite", "refresh", "--quick", "--leases", "100", "--rounds", "1", "--peers", folder,
        folder=tmp_path,
    )  # fmt: skip

    assert list(told["suites"]["refresh"]["not_measured"]) == ["some-lock"]
    assert "some-lock: not measured: there is no module some_lock_that_is_nowhere" in said
    assert "pip install --group peers" in " ".join(said.split())


@pytest.mark.parametrize(
    ("kind", "suites", "words"),
    [
        ("png", ["refresh"], []),
        ("svg", ["refresh"], ["multielect", "us a lease"]),
        ("svg", ["refresh", "takeover"], ["us a lease", "a poller at", "ms without a leader"]),
    ],
)
def test_a_picture_is_drawn(kind: str, suites: list[str], words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    # Words as such, not as outlines.
    (tmp_path / "matplotlibrc").write_text("svg.fonttype: none\n")
    picture = tmp_path / f"picture.{kind}"
    run(
        *(word for name in suites for word in ("--suite", name)), "--quick", "--leases", "100",
        "--leases", "200", "--rounds", "1", "--plot", picture, folder=tmp_path,
    )  # fmt: skip

    drawn = picture.read_bytes()
    assert drawn.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    for word in words:
        assert word.encode() in drawn


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_tells_what_it_has_and_leaves_nothing_behind(
    number: signal.Signals, tmp_path: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    figures = tmp_path / "figures.json"
    redis_client.set("of somebody else", "1")
    # To hold takes a minute: it does not end by itself.
    with start(
        "--suite", "acquire", "--suite", "hold", "--leases", "300", "--rounds", "1", "--url",
        redis_url, "--json", figures, folder=tmp_path,
    ) as bench:  # fmt: skip
        assert bench.stderr is not None
        assert [bench.stderr.readline().partition(":")[0] for _ in range(2)] == ["acquire", "hold"]
        while not redis_client.keys("multielect-bench-*:leader"):
            assert bench.poll() is None
        children = children_of(bench.pid)
        bench.send_signal(number)
        said, errors = bench.communicate(timeout=MAX_SECONDS)

    assert bench.returncode == 130, said + errors
    assert errors.endswith("nothing is left behind. The results so far are above.\n")
    assert "Traceback" not in said + errors
    assert redis_client.keys() == [b"of somebody else"]
    assert children
    wait_until_gone(children)
    assert "acquire: How long" in said
    told = json.loads(figures.read_text())
    assert told["interrupted"] is True
    assert told["suites"]["acquire"]["figures"]
    assert told["suites"]["hold"]["figures"] == []


@needs_proc
@pytest.mark.parametrize("name", ["takeover", "standby", "neighbours", "lateness"])
def test_a_suite_of_several_processes_leaves_nothing_behind(
    name: str, tmp_path: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    redis_client.set("of somebody else", "1")
    with start(
        "--suite", name, "--leases", "300", "--rounds", "100", "--url", redis_url, folder=tmp_path
    ) as bench:
        while not redis_client.keys("multielect-bench-*:leader"):
            assert bench.poll() is None
        children = children_of(bench.pid)
        bench.send_signal(signal.SIGINT)
        said, errors = bench.communicate(timeout=MAX_SECONDS)

    assert bench.returncode == 130, said + errors
    assert "Traceback" not in said + errors
    assert children
    wait_until_gone(children)
    assert redis_client.keys() == [b"of somebody else"]


@needs_proc
def test_interrupted_on_a_server_of_its_own_it_ends_that_too(tmp_path: Path) -> None:
    with start(
        "--suite", "refresh", "--rounds", "1000", "--leases", "500", folder=tmp_path
    ) as bench:
        assert bench.stderr is not None
        assert bench.stderr.readline().startswith("refresh")
        assert list(tmp_path.glob("multielect*"))
        bench.send_signal(signal.SIGINT)
        said, errors = bench.communicate(timeout=MAX_SECONDS)

    assert bench.returncode == 130, said + errors
    assert "Traceback" not in said + errors
    assert list(tmp_path.glob("multielect*")) == []


def children_of(pid: int) -> list[int]:
    """Return the processes that this one started."""
    listed = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [child for child in listed if status_of(child)[1:2] == [str(pid)]]


def wait_until_gone(processes: list[int]) -> None:
    """Wait until all have ended: one of them is Python's own, and ends once it sees us ended."""
    give_up = time.monotonic() + MAX_SECONDS
    while any(map(is_running, processes)):
        assert time.monotonic() < give_up, "they outlived their parent"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    return status_of(pid)[:1] not in ([], ["Z"], ["X"])


def status_of(pid: int) -> list[str]:
    """Return a process's state, its parent and so on; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
