"""Refuses the kinds of interpreter in which the compiled modules would not be safe.

Rules of this file:
    * It is imported before all else of the package, so that the refusal is the first thing
      said, and says what to do.
    * What is relied on is one GIL, and one interpreter a process: the pump's threads, the
      callbacks' and the user's meet under it.
"""

from __future__ import annotations

import importlib
import sysconfig


def _is_main_interpreter() -> bool:
    # Python has no public name for the question yet.
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
        " or in a process of its own"
    )
