#!/usr/bin/env bash
# hiredis: an attribute, which RESP3 puts before a reply, is counted as a reply of its own.
#
# Expected:  RESP3's attribute type (`|`) adds to the reply that follows it, and a client that does not
#            care drops it. So two replies, one of which has an attribute, are two replies.
# Seen:      hiredis 3.5.0 returns the attribute as a flat list of keys and values, and the reply after
#            it as the next one: each later reply is one too late. Inside an array the attribute takes the
#            place of an element, and the array's last element is left over as a reply. redis-py 8.1.0's
#            parser in Python raises InvalidResponse.
# Matters:   No server that was tried sends attributes of its own accord; `DEBUG PROTOCOL attrib` and
#            proxies do. A client should close a connection on which one arrives.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q redis==8.1.0 hiredis==3.5.0
"$work/venv/bin/python" - <<'PYTHON'
import hiredis


def replies(data):
    reader = hiredis.Reader()
    reader.feed(data)
    read = []
    while (reply := reader.gets()) is not False:
        read.append(reply)
    return read


ATTRIBUTE = b"|1\r\n+ttl\r\n:3600\r\n"
before = replies(ATTRIBUTE + b"*2\r\n:1\r\n:2\r\n+NEXT\r\n")
inside = replies(b"*3\r\n:1\r\n" + ATTRIBUTE + b":2\r\n:3\r\n+NEXT\r\n")
print("before a reply:", before)
print("inside an array:", inside)
assert before == [[b"ttl", 3600], [1, 2], b"NEXT"], before
assert inside == [[1, [b"ttl", 3600], 2], 3, b"NEXT"], inside

from redis._parsers import _RESP3Parser
from redis.exceptions import InvalidResponse


class Lines:
    """Bytes, as redis-py's socket buffer gives them."""

    def __init__(self, data):
        self.data = data

    def readline(self, timeout=None):
        line, _, self.data = self.data.partition(b"\r\n")
        return line


parser = _RESP3Parser(65536)
parser._buffer = Lines(ATTRIBUTE + b":1\r\n")
try:
    answer = parser._read_response()
except InvalidResponse as error:
    print("redis-py's own parser:", repr(error))
else:
    raise SystemExit(f"redis-py's own parser answered {answer!r}")
print("as found")
PYTHON
