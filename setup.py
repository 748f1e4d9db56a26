"""The compiled build, which pyproject.toml cannot describe: the same source, its core translated to C by mypyc,
and `_fast.c` beside it (`orchestrator.native`).

    ORCHESTRATOR_BUILD=compiled pip install .

Without that variable, and where there is no compiler of C, the build is plain Python. `orchestrator --version` says
which one runs.
"""

from __future__ import annotations

import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import ExecError

HERE = Path(__file__).parent
ROOMS = ("orchestrator/sip", "orchestrator/core", "orchestrator/events", "orchestrator/flow/run")
SINGLE = (
    "orchestrator/measures.py",
    "orchestrator/timers.py",
    "orchestrator/esl/channels.py",
    "orchestrator/esl/codec.py",
    "orchestrator/esl/translate.py",
    "orchestrator/flow/actions/call.py",
    "orchestrator/flow/actions/control.py",
    "orchestrator/flow/actions/events.py",
    "orchestrator/flow/actions/registration.py",
    "orchestrator/flow/language/evaluables.py",
    "orchestrator/flow/language/program.py",
    "orchestrator/views/call_history.py",
    "orchestrator/views/kept_call.py",
    "orchestrator/runtime/reactor.py",
    "orchestrator/runtime/udp.py",
    "orchestrator/runtime/udp_places.py",
)
PLAIN = {
    "orchestrator/sip/contact.py",  # a kind of str, which mypyc cannot have
    "orchestrator/sip/stores.py",  # protocols that packages' stores are held against at run time
    "orchestrator/flow/run/charging.py",  # calls that cost money are few
    "orchestrator/flow/run/effects.py",  # kinds of traits.py
    "orchestrator/flow/run/run_facts.py",  # kinds of a class of history.py
    "orchestrator/flow/run/step_facts.py",
    "orchestrator/flow/run/traits.py",  # packages have kinds of effects and works of their own
}
GROUP = "orchestrator"
"""What all compiled modules share is one library, `orchestrator__mypyc`."""
OPTIMISE = os.environ.get("ORCHESTRATOR_OPTIMISE", "1")
"""Of the C compiler. -O3 takes a third longer to build than -O1; `make test-compiled` takes 0, the quickest one."""


def sources() -> list[str]:
    """What is compiled."""
    found = [path.relative_to(HERE).as_posix() for room in ROOMS for path in sorted((HERE / room).rglob("*.py"))]
    return [name for name in (*found, *SINGLE) if name not in PLAIN and not name.endswith("__init__.py")]


def needed() -> list[str]:
    """What the compiled build needs: mypyc, and types of what the source imports."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    return extras["compiled"]


class InParallel(build_ext):
    """Compiles on all cores what has changed. The headers that each file includes are read once."""

    def build_extensions(self) -> None:
        cores = len(os.sched_getaffinity(0))
        self.parallel = cores
        compiler: Any = self.compiler
        one_by_one = compiler.compile
        headers, since = self.precompiled(max(self.extensions, key=lambda each: len(each.sources)))

        def compile_one(name: str, where: list[str], options: dict[str, Any]) -> list[str]:
            objects: list[str] = compiler.object_filenames([name], output_dir=options["output_dir"])
            made = Path(objects[0])
            if made.exists() and made.stat().st_mtime > max(since, Path(name).stat().st_mtime):
                return objects
            compiled: list[str] = one_by_one([name], include_dirs=where, **options)
            return compiled

        def compile(names: list[str], *, include_dirs: list[str], **options: Any) -> list[str]:
            names = sorted(names, key=lambda name: -Path(name).stat().st_size)  # no long one is left over at the end
            with ThreadPoolExecutor(cores) as pool:
                done = list(pool.map(lambda name: compile_one(name, [headers, *include_dirs], options), names))
            return [each for objects in done for each in objects]

        compiler.compile = compile
        super().build_extensions()

    def precompiled(self, largest: Extension) -> tuple[str, float]:
        """A folder with the headers as GCC has read them, which others do without; and when they last changed."""
        compiler: Any = self.compiler
        native = Path(largest.sources[0]).parent / f"__native_{GROUP}.h"
        internal = native.with_name(f"__native_internal_{GROUP}.h")
        folder = native.with_name("headers")
        folder.mkdir(exist_ok=True)
        own, python = folder / "own.h", folder / "python.h"
        own.write_text(f'#include "{native.name}"\n#include "{internal.name}"\n')
        python.write_text("#include <Python.h>\n")
        (folder / "Python.h").write_text("#include_next <Python.h>\n")
        where = [f"-I{name}" for name in (native.parent, *largest.include_dirs, *compiler.include_dirs)]
        for header, made in ((own, f"{native}.gch"), (python, f"{folder}/Python.h.gch")):
            options = [*where, *largest.extra_compile_args, "-x", "c-header", str(header), "-o", made]
            with suppress(ExecError):
                compiler.spawn([*compiler.compiler_so, *options])
        return str(folder), max(each.stat().st_mtime for each in (native, internal, Path(__file__)))


SLICE = "Py_ssize_t slice_len = endn - startn;"
WHOLE_SLICE = "Py_ssize_t slice_len = endn > startn ? endn - startn : 0;"


def mend_slices(extensions: list[Extension]) -> None:
    """Octets that end before they start are none, as in Python: b'x'[1:-1]. mypyc 2.4 raises SystemError there, so one
    stray quotation mark of a stranger would fail a turn. Its runtime is copied to where the build is; this is its copy.

    Raises `RuntimeError` for a runtime in which the place is not found.
    """
    for path in {Path(name) for each in extensions for name in each.sources if Path(name).name == "bytes_ops.c"}:
        text = path.read_text()
        if SLICE in text:
            path.write_text(text.replace(SLICE, WHOLE_SLICE))
        elif WHOLE_SLICE not in text:
            raise RuntimeError(f"{path}: another mypyc; does it cut b'x'[1:-1]? Then mend_slices in setup.py can go")


def main() -> None:
    if os.environ.get("ORCHESTRATOR_BUILD") != "compiled":
        setup()
        return
    try:
        from mypyc.build import mypycify
    except ImportError:  # pip asks what a build needs before it installs that
        setup(setup_requires=needed())
        return
    # What is not installed where the build runs is of no type; `make check` has looked at all of it.
    options = ["--config-file=", "--cache-dir=build/mypy", "--ignore-missing-imports", "--python-version", "3.11"]
    extensions = mypycify(
        [*options, *sources()], opt_level=OPTIMISE, debug_level="0", multi_file=True, group_name=GROUP
    )
    mend_slices(extensions)
    by_hand = Extension("orchestrator._fast", ["orchestrator/_fast.c"], extra_compile_args=["-O2"], optional=True)
    setup(ext_modules=[*extensions, by_hand], cmdclass={"build_ext": InParallel})


main()
