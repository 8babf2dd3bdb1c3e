"""The command line: `multielect`.

Rules of this package:
    * It is the top layer: nothing else in multielect imports it.
    * Only this package needs click and rich. Without them the command says what to install, and so
      does `multielect bench --plot` without matplotlib.
    * A command's module is imported when the command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `multielect` command with the process's arguments, then exit."""
    try:
        from .command import multielect  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        needed = (missing.name or "").partition(".")[0]
        if needed not in {"click", "rich"}:
            raise
        sys.exit(
            f"multielect: the command line needs {needed}, which is not installed.\n"
            "Install it with:  pip install 'multielect[cli,embedded]'"
        )
    multielect(prog_name="multielect")
