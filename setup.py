"""The compiled build, which pyproject.toml cannot describe: the same source, its core translated to C by mypyc,
and `_fast.c` beside it (`orchestrator.native`).

    ORCHESTRATOR_BUILD=compiled pip install .

Without that variable, and where there is no compiler of C, the build is plain Python. `orchestrator --version` says
which one runs.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOMS = ("orchestrator/sip", "orchestrator/core", "orchestrator/events")
SINGLE = ("orchestrator/timers.py",)
PLAIN = {
    "orchestrator/sip/contact.py",  # a kind of str, which mypyc cannot have
    "orchestrator/sip/stores.py",  # protocols that packages' stores are held against at run time
}
GROUP = "orchestrator"
"""What all compiled modules share is one library, `orchestrator__mypyc`."""
NEEDED = ["mypy[mypyc]>=1.13"]
OPTIMISE = "1"  # -O3 takes a third longer to build


def sources() -> list[str]:
    """What is compiled."""
    here = Path(__file__).parent
    found = [path.relative_to(here).as_posix() for room in ROOMS for path in sorted((here / room).rglob("*.py"))]
    return [name for name in (*found, *SINGLE) if name not in PLAIN and not name.endswith("__init__.py")]


class InParallel(build_ext):
    """Compiles the files of an extension on all cores."""

    def build_extensions(self) -> None:
        compiler: Any = self.compiler
        one_by_one = compiler.compile

        def compile(names: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                done = list(pool.map(lambda name: one_by_one([name], *args, **options), names))
            return [each for objects in done for each in objects]

        compiler.compile = compile
        super().build_extensions()


def main() -> None:
    if os.environ.get("ORCHESTRATOR_BUILD") != "compiled":
        setup()
        return
    try:
        from mypyc.build import mypycify
    except ImportError:  # pip asks what a build needs before it installs that
        setup(setup_requires=NEEDED)
        return
    # What is not installed where the build runs is of no type; `make check` has looked at all of it.
    options = ["--config-file=", "--ignore-missing-imports", "--python-version", "3.11"]
    extensions = mypycify(
        [*options, *sources()], opt_level=OPTIMISE, debug_level="0", multi_file=True, group_name=GROUP
    )
    by_hand = Extension("orchestrator._fast", ["orchestrator/_fast.c"], extra_compile_args=["-O2"], optional=True)
    setup(ext_modules=[*extensions, by_hand], cmdclass={"build_ext": InParallel})


main()
