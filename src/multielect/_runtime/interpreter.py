"""Refuses the kinds of interpreter in which the compiled modules would not be safe.

Rules of this file:
    * The package imports this module before all others, so that the refusal comes first. It says
      what to do.
    * The package relies on one GIL and one interpreter in each process, because our threads and the
      user's share data under it.
"""

from __future__ import annotations

import importlib
import sysconfig


def _is_main_interpreter() -> bool:
    # Python has no public function for this yet.
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() == interpreters.get_main())
    return True


if sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise ImportError(
        "multielect does not support free-threaded builds of Python:"
        " use a build with the GIL (python3.14 rather than python3.14t)"
    )
if not _is_main_interpreter():
    raise ImportError(
        "multielect does not support sub-interpreters: import it in the main interpreter,"
        " or in a separate process"
    )
