"""Faults in the Lua scripts: refreshes, acquires, releases, grants, epochs and fences."""

from __future__ import annotations

from .fault import Edit, Fault

_REAL = (
    "tests/integration/test_only_the_holder.py",
    "tests/integration/test_epochs.py",
    "tests/faults",
    "tests/integration",
)
_FENCE = ("tests/fencing",)


def _fault(name: str, about: str, *edits: Edit, suites: tuple[str, ...] = _REAL) -> Fault:
    return Fault(name, about, edits, suites)


IN_THE_SCRIPTS = (
    _fault(
        "release-compares-nothing",
        "release deletes whoever's lease stands there",
        Edit(
            "_protocol/lua/release.lua",
            "if values[i] == holder and values[i + 1] == ARGV[election + 2] then",
            "if values[i] then",
        ),
    ),
    _fault(
        "release-without-epoch",
        "release compares the holder alone",
        Edit(
            "_protocol/lua/release.lua",
            " and values[i + 1] == ARGV[election + 2] then",
            " then",
        ),
    ),
    _fault(
        "grant-without-epoch",
        "a grant compares the holder alone",
        Edit(
            "_protocol/lua/grant.lua",
            " and values[i + 1] == epoch then",
            " then",
        ),
    ),
    _fault(
        "retention-by-the-clock-alone",
        "an epoch that is ahead of the server's clock expires before that has passed it",
        Edit(
            "_protocol/lua/epochs_expire.lua",
            "math.max(now_ms, tonumber(epoch), written)",
            "now_ms",
        ),
        suites=("tests/integration/test_epoch_retention.py", *_REAL),
    ),
    _fault(
        "expiry-outlives-an-election",
        "whoever is elected leaves the expiry on the epoch",
        Edit(
            "_protocol/lua/acquire.lua",
            "try('SET', epoch_key, now_text, 'GET')",
            "try('SET', epoch_key, now_text, 'GET', 'KEEPTTL')",
        ),
        suites=("tests/integration/test_epoch_retention.py", *_REAL),
    ),
    _fault(
        "refresh-compares-nothing",
        "refresh extends whoever's lease stands there",
        Edit(
            "_protocol/lua/refresh.lua",
            "if holders[i] ~= holder then",
            "if not holders[i] then",
        ),
    ),
    _fault(
        "epoch-after-lease",
        "the lease is taken before its epoch is minted",
        Edit(
            "_protocol/lua/acquire.lua",
            "  local epoch = next_epoch(epoch_key)\n"
            "  if type(epoch) == 'table' then return epoch end\n",
            "",
        ),
        Edit(
            "_protocol/lua/acquire.lua",
            "  return epoch\nend",
            "  return next_epoch(epoch_key)\nend",
        ),
    ),
    _fault(
        "epochs-by-counter",
        "epochs are counted only, and start again where the counter is lost",
        Edit(
            "_protocol/lua/acquire.lua",
            "  if not by_time then return counted(epoch_key) end\n",
            "  do return counted(epoch_key) end\n",
        ),
    ),
    _fault(
        "one-bad-key-fails-all",
        "a key of another type aborts the script for its whole batch",
        Edit(
            "_protocol/lua/acquire.lua",
            "try('SET', epoch_key, now_text, 'GET')",
            "redis.call('SET', epoch_key, now_text, 'GET')",
        ),
    ),
    _fault(
        "other-type-overwritten",
        "an acquire takes a leader key of another type for a free one, and overwrites it",
        Edit("_protocol/lua/acquire.lua", "'PX', ttl_ms, 'NX')", "'PX', ttl_ms)"),
    ),
    _fault(
        "fence-lets-older-in",
        "a fenced write is made under an epoch that is not the newest",
        Edit(
            "_protocol/lua/fence.lua",
            "  if epoch < newest then\n",
            "  if epoch < fence then\n",
        ),
        suites=_FENCE,
    ),
    _fault(
        "fence-forgets",
        "a fence goes by the counter alone, which may be lost",
        Edit(
            "_protocol/lua/fence.lua",
            "  local newest = math.max(counter, fence)\n",
            "  local newest = counter\n",
        ),
        suites=_FENCE,
    ),
)
