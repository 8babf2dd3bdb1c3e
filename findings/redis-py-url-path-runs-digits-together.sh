#!/usr/bin/env bash
# redis-py: what becomes of the path of a redis:// URL.
#
# Expected:  `redis://host/prod` is refused, as a database is a number; so is `redis://host/1/2`; and an
#            option of TLS on a `redis://` URL is refused or ignored at once.
# Seen:      redis-py 8.1.0 takes the slashes out of the path and reads what is left as a number, or
#            else nothing: `/prod` is database 0, `/1/2` is database 12, `/1/` is database 1. Options are
#            handed on as they are: `?ssl_cert_reqs=none` and `?foo=1` are taken by from_url(), and raise
#            TypeError when the first connection is made, far from the URL.
# Matters:   A misspelt or templated URL reads and writes in somebody else's database without a word.
#            Check the path before the client is made.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q redis==8.1.0
"$work/venv/bin/python" - <<'PYTHON'
import redis


def database(url):
    return redis.Redis.from_url(url).connection_pool.make_connection().db


found = {
    path: database(f"redis://localhost{path}") for path in ("", "/7", "/prod", "/1/2", "/1/", "/-1")
}
print("path -> database:", found)
assert found == {"": 0, "/7": 7, "/prod": 0, "/1/2": 12, "/1/": 1, "/-1": -1}, found
for option in ("ssl_cert_reqs=none", "foo=1"):
    client = redis.Redis.from_url(f"redis://localhost?{option}")
    try:
        client.connection_pool.make_connection()
    except TypeError as error:
        print(f"?{option}: from_url() takes it; a connection: TypeError: {error}")
    else:
        raise SystemExit(f"{option} was taken")
print("as found")
PYTHON
