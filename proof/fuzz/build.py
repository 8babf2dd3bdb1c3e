"""Compiles the core and its fuzzers, instrumented, into a cache.

Rules of this file:
    * Modules that need more than the standard library are left out, so that a fuzzer starts at
      once.
    * A module is compiled again only if its text, a declaration or a flag has changed.
    * With clang, libFuzzer makes the inputs, guided by coverage. With gcc alone, `mutate.c` makes
      them without guidance. The checks are the same.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCE = ROOT / "src" / "multielect"
CACHE = ROOT / "build" / "fuzz"
TARGETS = ("replies", "exchanges")

_PURE = (
    "errors.py",
    "_runtime/__init__.py",
    "_runtime/foreign.py",
    "_protocol/__init__.py",
    "_protocol/scripts.py",
    "_protocol/lua",
    "_core/__init__.py",
    "_core/records.py",
)
# Cython's own code adds 0 to NULL. AddressSanitizer also finds null pointers, and objects that are
# too short for what is read.
_NOT_CHECKED = "null,object-size,pointer-overflow"
_CHECKS = "address,undefined"
_COMMON = (
    *("-g", "-O1", "-fno-omit-frame-pointer", "-w"),
    *("-fno-sanitize-recover=undefined", f"-fno-sanitize={_NOT_CHECKED}"),
)
_UNUSED = ("candidacy", "driver")
_EMPTY = "int LLVMFuzzerTestOneInput(const char *data, unsigned long size) { return 0; }\n"
_WITH_MAIN = _EMPTY + "int main(void) { return 0; }\n"


@dataclass(frozen=True)
class Compiler:
    """A compiler with sanitizers.

    Attributes:
        command: the command that runs it.
        guided: whether it has libFuzzer.
    """

    command: str
    guided: bool

    def module_flags(self, *, guides: bool) -> tuple[str, ...]:
        """Return the flags for a module. `guides` says whether its coverage guides the fuzzer."""
        checks = f"fuzzer-no-link,{_CHECKS}" if self.guided and guides else _CHECKS
        return (f"-fsanitize={checks}", *_COMMON, "-fPIC", "-shared")

    @property
    def program_flags(self) -> tuple[str, ...]:
        """The flags for the program."""
        checks = f"fuzzer,{_CHECKS}" if self.guided else _CHECKS
        guided = ("-DFUZZ_GUIDED",) if self.guided else ()
        return (f"-fsanitize={checks}", *_COMMON, *guided, "-rdynamic")


@dataclass(frozen=True)
class Fault:
    """A change to the core that a fuzzer must find.

    Attributes:
        name: its name.
        module: the module that is changed.
        sound: the text that is replaced.
        broken: the text that replaces it.
        target: the fuzzer that must find it.
    """

    name: str
    module: str
    sound: str
    broken: str
    target: str

    def plant(self, tree: Path) -> None:
        """Change the module in a copy of the sources.

        Raises:
            BuildError: if the text to replace does not occur exactly once.
        """
        path = tree / "multielect" / "_core" / f"{self.module}.pyx"
        text = path.read_text("utf-8")
        if text.count(self.sound) != 1:
            raise BuildError(f"{self.name}: {self.sound!r} does not occur once in {path.name}")
        path.write_text(text.replace(self.sound, self.broken), "utf-8")


class BuildError(RuntimeError):
    """Something could not be compiled."""


@functools.cache
def find_compilers() -> tuple[Compiler, ...]:
    """Return the installed compilers, the best first: clang with libFuzzer, gcc with sanitizers."""
    clangs = ("clang", *(f"clang-{version}" for version in range(22, 12, -1)))
    found = [Compiler(command, guided=True) for command in clangs if shutil.which(command)]
    working = [compiler for compiler in found if _works(compiler, _EMPTY)][:1]
    gcc = Compiler("gcc", guided=False)
    return (*working, gcc) if _works(gcc, _WITH_MAIN) else tuple(working)


def missing() -> str:
    """Return what is not installed, and how to install it; an empty text if nothing is missing."""
    if not find_compilers():
        return "no compiler with sanitizers (Debian: apt-get install clang, or gcc)"
    if _python_library() is None:
        return "this Python has no library to link with (Debian: apt-get install python3-dev)"
    try:
        import Cython  # noqa: F401, PLC0415  # imported here, to report its absence
    except ImportError:
        return "Cython is not installed (make sets up .venv, which has it)"
    return ""


@dataclass(frozen=True)
class Program:
    """A fuzzing program.

    Attributes:
        path: the path of the program.
        folder: its folder, with its sources and the files of its runs.
        compiler: the compiler that built it.
    """

    path: Path
    folder: Path
    compiler: Compiler

    def environment(self, target: str) -> dict[str, str]:
        """Return the environment variables of a run for one of `TARGETS`."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "FUZZ_TARGET": target,
            "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
            "PYTHONPATH": str(self.folder / "tree"),
            "PYTHONMALLOC": "malloc",
            "PYTHONDONTWRITEBYTECODE": "1",
            # Memory that Python keeps until its end is not a leak. -rss_limit_mb finds real leaks.
            "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:malloc_context_size=8",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }


def build(
    targets: Iterable[str] = TARGETS,
    *,
    fault: Fault | None = None,
    compiler: Compiler | None = None,
) -> Program:
    """Compile the modules that have changed, and return the program.

    Args:
        targets: the fuzzers to build.
        fault: a fault to plant in a copy of the core; None for none.
        compiler: one of `find_compilers`; None for the best.

    Raises:
        RuntimeError: if something is not installed; see `missing`.
        BuildError: if a compiler fails.
    """
    if missing():
        raise RuntimeError(missing())
    if compiler is None:
        compiler = find_compilers()[0]
    chosen = compiler
    folder = CACHE / compiler.command
    if fault is not None:
        sound, folder = folder, CACHE / f"{compiler.command}-{fault.name}"
        if (sound / "tree").exists():
            # All paths are relative, so the compiled modules can be copied.
            shutil.copytree(sound / "tree", folder / "tree", dirs_exist_ok=True)
    tree = folder / "tree"
    _copy_sources(tree)
    if fault is not None:
        fault.plant(tree)
    wanted = sorted({module for target in targets for module in _modules(tree, target)})
    declared = b"".join(path.read_bytes() for path in sorted(tree.rglob("*.pxd")))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: _compile(path, tree, declared, chosen), wanted):
            pass
    names = ("host.c", "numbers.c") if compiler.guided else ("host.c", "numbers.c", "mutate.c")
    sources = [HERE / name for name in names]
    library = _python_library()
    assert library is not None, missing()
    command = [compiler.command, *compiler.program_flags, *_includes(), *map(str, sources)]
    command += [*library, "-o", "fuzz"]
    _make(folder / "fuzz", b"".join(path.read_bytes() for path in sources), command, folder)
    return Program(folder / "fuzz", folder, compiler)


def _works(compiler: Compiler, text: str) -> bool:
    if shutil.which(compiler.command) is None:
        return False
    with tempfile.TemporaryDirectory() as name:
        source = Path(name, "empty.c")
        source.write_text(text, "ascii")
        command = [compiler.command, *compiler.program_flags, str(source), "-o", f"{name}/empty"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _copy_sources(tree: Path) -> None:
    wanted = {
        **{path.relative_to(SOURCE.parent): path for path in _compiled()},
        **{Path("multielect", name): SOURCE / name for name in _PURE},
        **{Path(path.name): path for path in HERE.glob("*.p[yx][xd]")},
    }
    for place, source in wanted.items():
        target = tree / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    (tree / "multielect" / "__init__.py").write_text("", "ascii")
    for path in tree.rglob("*.p[yx][xd]"):
        if path.relative_to(tree) not in wanted:
            path.unlink()


def _compiled() -> Iterator[Path]:
    for path in (SOURCE / "_core").glob("*.p[yx][xd]"):
        if path.stem not in _UNUSED:
            yield path


def _modules(tree: Path, target: str) -> list[Path]:
    """Return the modules of a fuzzer. That of the parser needs no other module of the core."""
    own = tree / f"{target}.pyx"
    core = tree / "multielect" / "_core"
    if target == "replies":
        return [own, core / "resp.pyx"]
    return [own, tree / "soundness.pyx", *core.glob("*.pyx")]


def _compile(path: Path, tree: Path, declared: bytes, compiler: Compiler) -> None:
    source, c_file, module = (
        path.with_suffix(suffix).relative_to(tree) for suffix in (".pyx", ".c", ".so")
    )
    cython = [sys.executable, "-m", "cython", "-3", "--fast-fail", "-I", "."]
    text = path.read_bytes() + declared
    _make(tree / c_file, text, [*cython, str(source), "-o", str(c_file)], tree)
    flags = compiler.module_flags(guides=path.parent != tree)
    command = [compiler.command, *flags, *_includes(), str(c_file), "-o", str(module)]
    _make(tree / module, (tree / c_file).read_bytes(), command, tree)


def _make(product: Path, text: bytes, command: list[str], folder: Path) -> None:
    """Run a command in a folder, unless it has already made this product from this text."""
    stamp = product.with_name(f".{product.name}.made")
    made = hashlib.sha256(text + "\0".join(command).encode()).hexdigest()
    if product.exists() and stamp.exists() and stamp.read_text("ascii") == made:
        return
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{command[0]} cannot make {product.name}:\n{done.stderr[-4000:]}")
    stamp.write_text(made, "ascii")


def _includes() -> tuple[str, ...]:
    return (f"-I{sysconfig.get_path('include')}",)


def _python_library() -> list[str] | None:
    """Return the flags that link with this interpreter; None if it has no library."""
    settings = sysconfig.get_config_vars()
    folders = [Path(str(settings[name])) for name in ("LIBDIR", "LIBPL") if settings.get(name)]
    if settings.get("MULTIARCH"):
        folders.append(folders[0] / str(settings["MULTIARCH"]))
    system = [*str(settings.get("LIBS", "")).split(), *str(settings.get("SYSLIBS", "")).split()]
    for name in (settings.get("LDLIBRARY"), settings.get("LIBRARY")):
        for folder in folders:
            if name and (folder / str(name)).is_file():
                return [str(folder / str(name)), f"-Wl,-rpath,{folder}", *system]
    return None
