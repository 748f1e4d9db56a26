"""The extension in C, built for tests of the plain build, which has none."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType

import pytest

import orchestrator

SOURCE = Path(orchestrator.__file__).with_name("_fast.c")


@cache
def extension() -> ModuleType:
    """Skips the test where there is no compiler of C or no headers of Python."""
    compiler = shutil.which("cc")
    headers = Path(sysconfig.get_path("include"))
    if compiler is None or not (headers / "Python.h").exists():
        pytest.skip("needs a C compiler and the headers of Python")
    built = Path(mkdtemp()) / "_fast.so"
    options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{headers}"]
    subprocess.run([compiler, *options, str(SOURCE), "-o", str(built)], check=True, timeout=120)
    spec = importlib.util.spec_from_file_location("orchestrator._fast", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.rmtree(built.parent)
    return module
