"""The whole demo, in processes of its own: it passes, cleans up, and can be interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from multielect.cli.client import connect
from multielect.cli.cluster import PrivateCluster
from multielect.cli.demo.events import read_events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multielect.embedded import EmbeddedServer

FULL = Path(__file__).parents[3] / "shared" / "data" / "flights.csv.zip"
MAX_SECONDS = 60.0

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc"
)


@pytest.fixture(scope="module")
def private_cluster(binary: str) -> Iterator[PrivateCluster]:
    with PrivateCluster(binary=binary) as running:
        yield running


@pytest.fixture
def few_events(tmp_path: Path) -> Path:
    """Six hundred events of sixty aircraft."""
    path = tmp_path / "events.csv.zip"
    rows = "".join(f"{number},N{number * 7 % 60}\n" for number in range(600))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("events.csv", "flight,tailnum\n" + rows)
    return path


def start(*args: str | Path, folder: Path) -> subprocess.Popen[str]:
    """Start the demo with its temporary files in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "multielect", "demo", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def run(*args: str | Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """Run the demo to its end; it must pass. Returns what it said, and its figures."""
    figures = folder / "figures.json"
    with start(*args, "--json", figures, folder=folder) as demo:
        said = rest_of(demo)
    assert demo.returncode == 0, said
    return said, json.loads(figures.read_text())


def assert_sound(figures: dict[str, Any]) -> None:
    wrong = (
        "lost", "duplicates", "out_of_order", "wrong_digests", "by_no_leader", "unpaired",
        "planned_lost", "idle_joins", "unbalanced",
    )  # fmt: skip
    assert {name: figures[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert figures["committed"] == figures["events"]
    assert figures["overlap_ms"] == 0
    assert figures["epochs_rise"] is True


def test_it_passes_on_a_server_of_its_own(few_events: Path, tmp_path: Path) -> None:
    said, figures = run("--events", few_events, "--seconds", "6", folder=tmp_path)

    assert_sound(figures)
    assert (figures["elections"], figures["events"], figures["nodes"]) == (60, 600, 3)
    assert figures["freeze_takeover_ms"]["count"] == 20
    assert figures["back_takeover_ms"]["count"] >= figures["back_least"] == 20
    assert figures["join_takeover_ms"]["count"] >= figures["join_least"] == 15
    assert figures["crash_takeover_ms"]["count"] == 15
    assert figures["release_takeover_ms"]["count"] >= figures["release_least"] == 20
    assert figures["fenced_out"] >= figures["late_commits"] > 0
    assert "PASSED" in said
    assert "did not happen" not in said
    assert "\x1b" not in said
    assert list(tmp_path.glob("multielect*")) == []


def test_it_leaves_a_shared_server_as_it_was(
    few_events: Path, tmp_path: Path, redis_client: redis.Redis, redis_url: str
) -> None:
    redis_client.set("of somebody else", "1")
    _, figures = run(
        "--events", few_events, "--seconds", "3", "--nodes", "2", "--no-join", "--url",
        redis_url, folder=tmp_path,
    )  # fmt: skip

    assert_sound(figures)
    assert figures["release_takeover_ms"]["count"] == 0, "nobody was left to take over"
    assert redis_client.keys() == [b"of somebody else"]


def test_mishaps_can_be_left_out(few_events: Path, tmp_path: Path) -> None:
    said, figures = run(
        "--events", few_events, "--seconds", "3", "--no-freeze", "--no-join", "--no-kill",
        folder=tmp_path,
    )  # fmt: skip

    assert_sound(figures)
    for what in ("freeze", "back", "join", "crash"):
        assert figures[f"{what}_takeover_ms"]["count"] == 0
    assert figures["release_takeover_ms"]["count"] >= figures["release_least"] == 20
    assert figures["fenced_out"] == 0
    assert "did not happen" in said


def test_it_passes_on_a_cluster_of_its_own(few_events: Path, tmp_path: Path) -> None:
    said, figures = run("--events", few_events, "--seconds", "6", "--cluster", folder=tmp_path)

    assert_sound(figures)
    assert figures["server"].startswith("a cluster of 3 primaries, ")
    assert figures["crash_takeover_ms"]["count"] == 15
    assert figures["fenced_out"] >= figures["late_commits"] > 0
    assert "did not happen" not in said
    assert list(tmp_path.glob("multielect*")) == []


@pytest.mark.parametrize("of_one_node", [False, True])
def test_it_leaves_a_shared_cluster_as_it_was(
    few_events: Path, tmp_path: Path, private_cluster: PrivateCluster, of_one_node: bool
) -> None:
    url = private_cluster.urls[1] if of_one_node else private_cluster.url
    with connect(url, connect_timeout_s=5, timeout_s=5) as client:
        client.set("of somebody else", "1")
        _, figures = run(
            "--events", few_events, "--seconds", "3", "--nodes", "2", "--no-join", "--url", url,
            folder=tmp_path,
        )  # fmt: skip

        assert_sound(figures)
        assert list(client.scan_iter()) == [b"of somebody else"]


@needs_proc
def test_an_interrupted_run_leaves_no_cluster_behind(few_events: Path, tmp_path: Path) -> None:
    with start("--events", few_events, "--seconds", "10", "--cluster", folder=tmp_path) as demo:
        said = wait_for(demo, "were led")
        started = [pid for child in children_of(demo.pid) for pid in (child, *children_of(child))]
        demo.send_signal(signal.SIGINT)
        said += rest_of(demo)

    assert demo.returncode == 130, said
    # The nodes of the demo, and those of the cluster, each with its supervisor.
    assert len(started) == 3 + 2 * 3
    assert not any(map(is_running, started))
    assert list(tmp_path.glob("multielect*")) == []


@needs_proc
@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGINT, "were led"),
        (signal.SIGTERM, "is frozen"),
        (signal.SIGINT, "node-4 joins"),
    ],
)
def test_an_interrupted_run_leaves_nothing_behind(
    few_events: Path, tmp_path: Path, redis_url: str, number: signal.Signals, when: str
) -> None:
    with start(
        "--events", few_events, "--seconds", "10", "--url", redis_url, "--ttl", "2",
        folder=tmp_path,
    ) as demo:  # fmt: skip
        said = wait_for(demo, when)
        nodes = children_of(demo.pid)
        demo.send_signal(number)
        said += rest_of(demo)

    assert demo.returncode == 130, said
    assert said.endswith("Interrupted: all nodes are ended, and nothing is left behind.\n")
    assert "Traceback" not in said
    assert len(nodes) == (4 if when == "node-4 joins" else 3)
    assert not any(map(is_running, nodes))
    assert list(tmp_path.glob("multielect*")) == []
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys() == []


@needs_proc
@pytest.mark.parametrize("when", ["were led", "is frozen"])
def test_nodes_die_with_the_conductor(few_events: Path, tmp_path: Path, when: str) -> None:
    with start("--events", few_events, "--seconds", "10", folder=tmp_path) as demo:
        wait_for(demo, when)
        nodes = children_of(demo.pid)
        demo.kill()
        rest_of(demo)

    assert len(nodes) >= 3
    give_up = time.monotonic() + 10
    while any(map(is_running, nodes)):
        assert time.monotonic() < give_up, "a node outlived the conductor"
        time.sleep(0.01)


@needs_proc
def test_a_node_that_fails_is_reported(few_events: Path, tmp_path: Path) -> None:
    with start("--events", few_events, "--seconds", "10", folder=tmp_path) as demo:
        said = wait_for(demo, "were led")
        nodes = [pid for pid in children_of(demo.pid) if b"demo.node" in command_of(pid)]
        os.kill(nodes[1], signal.SIGKILL)
        said += rest_of(demo)

    assert demo.returncode == 1
    assert "Error: node-2 ended by itself, status -9" in said
    assert not any(map(is_running, nodes))


def test_a_server_that_goes_away_is_reported(
    few_events: Path, tmp_path: Path, private_server: EmbeddedServer
) -> None:
    with start(
        "--events", few_events, "--seconds", "10", "--url", private_server.url, folder=tmp_path
    ) as demo:
        said = wait_for(demo, "were led")
        private_server.stop()
        said += rest_of(demo)

    assert demo.returncode == 1
    assert "Error: Redis failed: " in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="the year of flights is not beside the repository")
def test_a_year_of_flights(tmp_path: Path) -> None:
    _, figures = run("--events", FULL, "--seconds", "20", folder=tmp_path)

    assert_sound(figures)
    assert (figures["elections"], figures["events"]) == (4_044, 336_776)
    assert figures["fenced_out"] >= figures["late_commits"] > 0
    # Wide bounds, half a TTL: how fast it is, is for a quiet machine and the demo to show.
    assert figures["crash_takeover_ms"]["p99"] < figures["ttl_ms"] / 2
    assert figures["join_takeover_ms"]["p99"] < figures["ttl_ms"] / 2
    assert figures["release_takeover_ms"]["p99"] < figures["ttl_ms"] / 2


@pytest.mark.slow
def test_the_sample(tmp_path: Path) -> None:
    _, figures = run(folder=tmp_path)

    assert_sound(figures)
    assert figures["events"] == len(read_events(None))


def wait_for(demo: subprocess.Popen[str], words: str) -> str:
    """Read what the demo says up to the line with these words."""
    assert demo.stdout is not None
    said = ""
    for line in demo.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it never said {words!r}:\n{said}")


def rest_of(demo: subprocess.Popen[str]) -> str:
    """Read what the demo says until it ends; `communicate` forgets what was read ahead."""
    assert demo.stdout is not None
    said = demo.stdout.read()
    demo.wait(MAX_SECONDS)
    return said


def children_of(pid: int) -> list[int]:
    """Return the processes that this one started, in the order in which it did."""
    listed = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return sorted(child for child in listed if status_of(child)[1:2] == [str(pid)])


def is_running(pid: int) -> bool:
    return status_of(pid)[:1] not in ([], ["Z"], ["X"])


def status_of(pid: int) -> list[str]:
    """Return a process's state, its parent and so on; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
