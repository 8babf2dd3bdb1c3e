"""Turns every .pyx below src/ into an extension module; all else is in pyproject.toml.

The C files go to build/cython, so the source tree and the sdist never hold any.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SOURCE = Path("src")
JOBS = os.cpu_count() or 1


def _extension(pyx: Path) -> Extension:
    return Extension(".".join(pyx.relative_to(SOURCE).with_suffix("").parts), [str(pyx)])


# The guard matters where the compiler's worker processes are spawned and read this file again.
if __name__ == "__main__":
    setup(
        ext_modules=cythonize(
            [_extension(pyx) for pyx in sorted(SOURCE.rglob("*.pyx"))],
            build_dir="build/cython",
            include_path=[str(SOURCE)],
            compiler_directives={"language_level": 3},
            nthreads=JOBS,
            quiet=True,
        ),
        options={"build_ext": {"parallel": JOBS}},
    )
