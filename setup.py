"""Turns every .pyx below src/ into an extension module; all else is in pyproject.toml.

The C files go to build/cython, so the source tree and the sdist never hold any.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

SOURCE = Path("src")
JOBS = os.cpu_count() or 1


class BuildExtensions(build_ext):
    """Compiles, or says in its last line what that takes."""

    def run(self) -> None:
        """Compile all extension modules."""
        try:
            super().run()
        except (BaseError, CCompilerError) as error:
            raise SystemExit(
                f"multielect could not be compiled: {error}\n"
                "Building it takes a C compiler and Python's headers. Install gcc and python3-dev"
                " (Debian, Ubuntu), gcc and python3-devel (Fedora), or the Xcode command line tools"
                " (macOS: xcode-select --install), or set CC to the compiler that you have"
            ) from error


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
        cmdclass={"build_ext": BuildExtensions},
        options={"build_ext": {"parallel": JOBS}},
    )
