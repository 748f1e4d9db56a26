"""The pure tests on the other Python versions that this machine has.

    python -m tools.pythons [folder ...]

A version that is not here is skipped, and a line says so. Each gets a virtual environment of its own, `.venv-3.12`,
which is kept. The exit status is 1 when a test fails on one of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
"""What pyproject.toml promises."""
FOLDERS = ("tests/events", "tests/flow", "tests/kit", "tests/sip", "tests/store")
"""What tells a difference between versions without sockets and real time."""


def interpreter_of(version: str) -> Path | None:
    """An interpreter of this version: in PATH, of pyenv, or of uv. None when there is none that runs."""
    home = Path.home()
    places = [
        *([Path(found)] if (found := shutil.which(f"python{version}")) else []),
        *sorted((home / ".pyenv/versions").glob(f"{version}.*/bin/python")),
        *sorted((home / ".local/share/uv/python").glob(f"cpython-{version}.*/bin/python")),
    ]
    return next((place for place in places if _runs(place, version)), None)


def _runs(place: Path, version: str) -> bool:
    check = f"import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    return subprocess.run([place, "-c", check], capture_output=True, check=False).returncode == 0


def run_on(version: str, folders: Sequence[str]) -> int:
    """Exit status of the tests on one version, 0 when it is skipped."""
    found = interpreter_of(version)
    if found is None:
        print(f"Python {version}: not on this machine, skipped", flush=True)
        return 0
    print(f"Python {version}: {found}", flush=True)
    python = ROOT / f".venv-{version}/bin/python"
    stamp = python.parents[1] / ".stamp"
    if not stamp.exists() or stamp.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        subprocess.run([found, "-m", "venv", python.parents[1]], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--editable", ".[test]"], cwd=ROOT, check=True)
        stamp.touch()
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "auto",
        "--maxprocesses",
        "4",
        *folders,
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(folders: Sequence[str]) -> int:
    """Run on each version but the one that runs this."""
    running = "{}.{}".format(*sys.version_info[:2])
    failed = [version for version in VERSIONS if version != running and run_on(version, folders or FOLDERS)]
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
