"""What tests take from npm: installed by a lock file, once, into pytest's cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest


def npm_packages(locked: Path, request: pytest.FixtureRequest, what: str, seconds: float) -> Path:
    """A folder with the node_modules that package-lock.json in `locked` names. Skips the test, and says that `what` is
    missing, where npm or its registry is not there."""
    if shutil.which("npm") is None:
        pytest.skip(f"npm is not installed: no {what}")
    lock = (locked / "package-lock.json").read_bytes()
    cache = request.config.cache
    assert cache is not None
    folder = cache.mkdir(f"npm-{hashlib.sha256(lock).hexdigest()[:12]}")
    if not (folder / "node_modules" / ".package-lock.json").exists():  # npm's last act
        for name in ("package.json", "package-lock.json"):
            shutil.copy(locked / name, folder)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install {what} in {seconds:g} s")
        if done.returncode:
            pytest.skip(f"npm cannot install {what}: {done.stderr.strip().splitlines()[-1:]}")
    return folder
