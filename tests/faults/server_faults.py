"""Faults of the server: of its process, its replies, its data and its clock.

Rules of this file:
    * Two nodes may believe to lead an election until the older deadline in three cases: the server
      lost leases, its clock was stepped forward, or it was replaced and goes on. Only these faults
      have excuses. A server that kept its data, was slow or answered errors is no excuse.
    * If nodes would send no such commands during a fault, it makes terms end.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import redis

from .checker import SERVER_CLOCK_JUMPED, SERVER_LOST_DATA
from .fault import Rank, Scene, fault
from .tap import OURS, WITHIN_S

CLOCK_STEP_S = 60.0
COUNTER_MAXIMUM = 2**53 - 1
SLOW_SCRIPT = "for i = 1, 20000000000 do end return 1"
SPOIL_KEY = "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'not a lease') return 1"


def _admin(scene: Scene) -> Any:
    return scene.fleet.server.admin


# ---- the process


@fault("server-killed", Rank.STOPS_SERVER, lasts_ttls=0.6)
def _killed(scene: Scene) -> Iterator[None]:
    """Kill -9; the server comes back with its data."""
    scene.fleet.server.kill()
    yield
    scene.fleet.restart()


@fault("server-killed-for-more-than-a-ttl", Rank.STOPS_SERVER)
def _killed_for_long(scene: Scene) -> Iterator[None]:
    """Kill -9; the server comes back with its data when all leases have ended."""
    scene.fleet.server.kill()
    yield
    scene.fleet.restart()


@fault("server-restarted-empty", Rank.STOPS_SERVER, lasts_ttls=0.1, excuses=SERVER_LOST_DATA)
def _restarted_empty(scene: Scene) -> Iterator[None]:
    """Kill -9; the server comes back at once without its data."""
    scene.fleet.server.kill()
    yield
    scene.fleet.restart_empty()


@fault("primary-orphaned", Rank.REPLACES_SERVER, excuses=SERVER_LOST_DATA)
def _orphaned(scene: Scene) -> Iterator[None]:
    """SIGSTOP, a replica is promoted, SIGCONT: the old primary grants leases to one node too."""
    fleet, node = scene.fleet, scene.leader()
    fleet.replace_server(node)
    scene.wait_led_by_others()
    yield
    woken_ns = fleet.now_ns()
    fleet.server.wake_orphan()

    def is_elected() -> bool:
        node.history.skim()
        return any(term.told_ns > woken_ns for term in node.history.terms())

    fleet.wait_until(is_elected, WITHIN_S, "an election by the old primary")
    unlawful = {(grant.holder, grant.epoch) for grant in fleet.end_orphan(node)}

    def has_written() -> bool:
        fleet.drain_register()
        return any((entry.holder, entry.epoch) in unlawful for entry in fleet.entries())

    fleet.wait_until(has_written, WITHIN_S, "a write by an epoch of the old primary")


def _frozen(scene: Scene) -> Iterator[None]:
    scene.fleet.server.freeze()
    yield
    scene.fleet.server.thaw()


@fault("server-frozen-for-less-than-a-ttl", Rank.STOPS_SERVER, lasts_ttls=0.5)
def _frozen_briefly(scene: Scene) -> Iterator[None]:
    """SIGSTOP, and SIGCONT before the leases end."""
    return _frozen(scene)


@fault("server-frozen-for-more-than-a-ttl", Rank.STOPS_SERVER)
def _frozen_for_long(scene: Scene) -> Iterator[None]:
    """SIGSTOP, and SIGCONT when all leases have ended."""
    return _frozen(scene)


# ---- commands of others


@fault("scripts-flushed", Rank.TAMPERS, lasts_ttls=0.8)
def _scripts_flushed(scene: Scene) -> Iterator[None]:
    """SCRIPT FLUSH before releases and acquires."""
    # More than once, so that every node has already sent every script on its connection.
    for _ in range(scene.fleet.plan.nodes):
        scene.stir()
        scene.wait(0.4)
        _admin(scene).script_flush()
    scene.stir()
    yield


@fault("clients-killed", Rank.TAMPERS, lasts_ttls=0.5)
def _clients_killed(scene: Scene) -> Iterator[None]:
    """CLIENT KILL of every connection of every node."""
    scene.fleet.server.kill_clients()
    yield


@fault("clients-paused", Rank.STOPS_SERVER)
def _clients_paused(scene: Scene) -> Iterator[None]:
    """CLIENT PAUSE of all commands for longer than a TTL."""
    _admin(scene).client_pause(round(1.4 * scene.ttl_s * 1000))
    yield


@fault("writes-paused", Rank.STOPS_SERVER, lasts_ttls=0.5)
def _writes_paused(scene: Scene) -> Iterator[None]:
    """CLIENT PAUSE of writes, which ends before the leases do."""
    _admin(scene).client_pause(round(30_000 * scene.ttl_s), all=False)
    yield
    _admin(scene).client_unpause()


@fault("server-busy", Rank.STOPS_SERVER)
def _busy(scene: Scene) -> Iterator[None]:
    """A script that does not end: first no replies, then BUSY, then SCRIPT KILL."""
    admin = _admin(scene)
    admin.config_set("lua-time-limit", round(200 * scene.ttl_s))

    def hog() -> None:
        with (
            redis.Redis.from_url(
                scene.fleet.server.url, client_name=OURS, socket_timeout=WITHIN_S
            ) as client,
            contextlib.suppress(redis.RedisError),
        ):
            client.eval(SLOW_SCRIPT, 0)

    busy = threading.Thread(target=hog)
    busy.start()
    yield
    while busy.is_alive():
        # SCRIPT KILL fails until the script has begun and has exceeded its time limit.
        with contextlib.suppress(redis.ResponseError):
            admin.script_kill()
        busy.join(0.01)
    admin.config_set("lua-time-limit", 5000)


# ---- error replies


@fault("server-read-only", Rank.LIMITS_SERVER)
def _read_only(scene: Scene) -> Iterator[None]:
    """The server becomes the replica of a primary that does not exist, and then a primary again."""
    _admin(scene).execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    _admin(scene).execute_command("REPLICAOF", "NO", "ONE")


@fault("too-few-replicas", Rank.LIMITS_SERVER)
def _too_few_replicas(scene: Scene) -> Iterator[None]:
    """The server takes no writes, as too few replicas are connected."""
    _admin(scene).config_set("min-replicas-to-write", 1)
    yield
    _admin(scene).config_set("min-replicas-to-write", 0)


@fault("out-of-memory", Rank.LIMITS_SERVER)
def _out_of_memory(scene: Scene) -> Iterator[None]:
    """The server is full: it extends and releases leases, and grants none."""
    scene.fleet.drain_register()
    _admin(scene).config_set("maxmemory", 1)
    scene.stir(scene.some())
    yield
    _admin(scene).config_set("maxmemory", 0)


@fault("misconf", Rank.LIMITS_SERVER)
def _misconf(scene: Scene) -> Iterator[None]:
    """The server takes no writes, as it could not save its data."""
    admin, in_the_way = _admin(scene), scene.fleet.server.data / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    _save(scene, "err")
    yield
    # A server that was restarted empty meanwhile has a new folder.
    with contextlib.suppress(FileNotFoundError):
        in_the_way.rmdir()
    _save(scene, "ok")
    assert admin.info("persistence")["rdb_last_bgsave_status"] == "ok"


def _save(scene: Scene, expected: str) -> None:
    admin = _admin(scene)

    def is_saved() -> bool:
        info = admin.info("persistence")
        if info["rdb_bgsave_in_progress"] == 0 and info["rdb_last_bgsave_status"] != expected:
            # Another child, of the append-only file, may be in the way.
            with contextlib.suppress(redis.ResponseError):
                admin.bgsave()
        return bool(info["rdb_last_bgsave_status"] == expected)

    scene.fleet.wait_until(is_saved, WITHIN_S, f"a save that ends with {expected}")


# ---- its data


@fault("flushall", Rank.TAMPERS, lasts_ttls=1.2, excuses=SERVER_LOST_DATA)
def _flushall(scene: Scene) -> Iterator[None]:
    """FLUSHALL: leases, counters, fences and scripts are gone."""
    scene.fleet.flush_all()
    yield


@fault("leases-evicted", Rank.LIMITS_SERVER, lasts_ttls=0.5, excuses=SERVER_LOST_DATA)
def _evicted(scene: Scene) -> Iterator[None]:
    """The server is full, and evicts keys that have a TTL."""
    admin = _admin(scene)
    scene.fleet.drain_register()
    admin.config_set("maxmemory-policy", "volatile-ttl")
    admin.config_set("maxmemory", 1)
    yield
    admin.config_set("maxmemory", 0)
    admin.config_set("maxmemory-policy", "noeviction")


@fault("leases-deleted", Rank.TAMPERS, lasts_ttls=0.8, excuses=SERVER_LOST_DATA)
def _deleted(scene: Scene) -> Iterator[None]:
    """Another client deletes some leader keys."""
    _admin(scene).delete(*map(scene.fleet.leader_key, scene.some()))
    yield


@fault("leases-taken-by-a-stranger", Rank.TAMPERS, excuses=SERVER_LOST_DATA)
def _taken(scene: Scene) -> Iterator[None]:
    """Another client writes another holder into some leader keys, for longer than a TTL."""
    for number in scene.some():
        key = scene.fleet.leader_key(number)
        _admin(scene).set(key, "stranger/0", px=round(1.2 * scene.ttl_s * 1000))
    yield


@fault("counters-lost", Rank.TAMPERS, lasts_ttls=0.8)
def _counters_lost(scene: Scene) -> Iterator[None]:
    """Every epoch counter is deleted, and then terms begin."""
    numbers = range(scene.fleet.plan.elections)
    _admin(scene).delete(*map(scene.fleet.epoch_key, numbers))
    scene.stir()
    yield


@fault("leader-key-of-the-wrong-type", Rank.TAMPERS, lasts_ttls=1.2, excuses=SERVER_LOST_DATA)
def _wrong_type(scene: Scene) -> Iterator[None]:
    """Some leader keys become lists: their elections fail, and no others."""
    keys = [scene.fleet.leader_key(number) for number in scene.some()]
    for key in keys:
        _admin(scene).eval(SPOIL_KEY, 1, key)
    yield
    _admin(scene).delete(*keys)


@fault("counter-at-its-maximum", Rank.TAMPERS)
def _counter_at_maximum(scene: Scene) -> Iterator[None]:
    """Some counters reach the highest epoch: terms of those elections end, and none begins."""
    chosen = scene.some()
    keys = [scene.fleet.epoch_key(number) for number in chosen]
    _admin(scene).mset(dict.fromkeys(keys, COUNTER_MAXIMUM))
    scene.stir(chosen)
    yield
    _admin(scene).delete(*keys)


# ---- its clock


@fault("server-clock-forward", Rank.TURNS_CLOCK, excuses=SERVER_CLOCK_JUMPED)
def _clock_forward(scene: Scene) -> Iterator[None]:
    """The server's clock is stepped forward by many TTLs: every lease ends at once."""
    scene.fleet.server.step_clock(CLOCK_STEP_S)
    yield


@fault("server-clock-back", Rank.TURNS_CLOCK)
def _clock_back(scene: Scene) -> Iterator[None]:
    """The server's clock is stepped back by many TTLs: every lease lasts that much longer."""
    scene.fleet.server.step_clock(-CLOCK_STEP_S)
    yield


@fault("server-clock-back-and-a-crash", Rank.TURNS_CLOCK, lasts_ttls=0.5)
def _clock_back_and_a_crash(scene: Scene) -> Iterator[None]:
    """Nodes see a lease with a very long time left. Its holder refreshes it and goes on."""
    node = scene.leader(to_end=True)
    place = scene.fleet.places.index(node)
    scene.fleet.server.step_clock(-CLOCK_STEP_S)
    for other in scene.fleet.living():
        if other is not node:
            # A node that connects again sends its acquires at once.
            other.wire.cut()
    scene.wait(0.7)
    scene.fleet.kill_node(node)
    scene.wait_led_by_others()
    yield
    scene.fleet.start_node(place)
