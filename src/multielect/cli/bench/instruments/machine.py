"""The machine and the versions of a run, and its command line.

Rules of this file:
    * A fact that the system does not tell is left out. Nothing in this file ends a run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

from multielect import __version__

from .servers import Server

# Places in the first line of /proc/stat: see proc(5).
_IDLE, _STEAL = (3, 4), 7
_MIN_REPORTED = 0.01


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the processor's name, as far as it is known."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def described_machine(server: Server) -> dict[str, str]:
    """Return the facts of the machine and the versions, by name, for the report and the JSON."""
    where = "private" if server.is_private else "the user's"
    return {
        "server": f"{server.description} ({where}), over {server.way}",
        "machine": f"{processor()}, {cores()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **_load(),
        "multielect": __version__,
        **{name: version for name in ("redis", "hiredis") if (version := version_of(name))},
    }


def _load() -> dict[str, str]:
    """Return how busy the machine is before anything is measured."""
    with contextlib.suppress(OSError, AttributeError):
        return {"load": f"{os.getloadavg()[0]:.2f} in the minute before"}
    return {}


class Stolen:
    """Measures the processor time that the host of this virtual machine gives to others."""

    def __init__(self) -> None:
        """Begin to measure."""
        self._before = _processor_ticks()

    def notes(self) -> list[str]:
        """Return a note if the system reports that time and it was at least one per cent."""
        ticks = [
            now - before for now, before in zip(_processor_ticks(), self._before, strict=False)
        ]
        if len(ticks) <= _STEAL:
            return []
        wanted = sum(ticks[: _STEAL + 1]) - sum(ticks[place] for place in _IDLE)
        share = ticks[_STEAL] / wanted if wanted > 0 else 0.0
        if share < _MIN_REPORTED:
            return []
        wanted_by = "Of the processor time that this virtual machine wanted meanwhile,"
        return [f"{wanted_by} its host gave {share:.0%} to others."]


def _processor_ticks() -> list[int]:
    with contextlib.suppress(OSError, ValueError):
        return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return []


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution, or an empty text if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return ""
