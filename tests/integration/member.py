"""A balanced node in a process of its own: `python member.py URL PREFIX KEYS TTL`.

It says "started", and ends when its standard input does, by a drain if a line came before.
"""

from __future__ import annotations

import sys

from multielect import ElectionGroup


def main() -> None:
    """Be a member until the input ends."""
    url, prefix, keys, ttl = sys.argv[1:]
    group = ElectionGroup(url, prefix=prefix, ttl=float(ttl), balance=True)
    group.add_many(f"k{number}" for number in range(int(keys)))
    with group:
        print(group.node_id, flush=True)  # noqa: T201
        if sys.stdin.readline():
            group.drain(5)


if __name__ == "__main__":
    main()
