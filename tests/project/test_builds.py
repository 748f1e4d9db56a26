"""What the builds are made of. `make test-compiled` compiles; here nothing is."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import mypyc
import pytest
import setuptools

from orchestrator import BUILD, timers
from tools.wheels import PARTS, build, copied

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """Names of setup.py, which has set nothing up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ORCHESTRATOR_BUILD", raising=False)
        patch.setattr(setuptools, "setup", lambda **_: None)
        return runpy.run_path(str(ROOT / "setup.py"))


def test_what_is_compiled_is_there(recipe: dict[str, Any]) -> None:
    sources = recipe["sources"]()
    assert {"orchestrator/timers.py", "orchestrator/sip/parser.py", "orchestrator/core/calls/call.py"} <= set(sources)
    assert len(set(sources)) == len(sources) and all((ROOT / name).is_file() for name in sources)
    assert not [name for name in sources if name.endswith("__init__.py")]
    assert not set(sources) & recipe["PLAIN"] and all((ROOT / name).is_file() for name in recipe["PLAIN"])


def test_a_build_asks_for_what_stands_in_the_project(recipe: dict[str, Any]) -> None:
    needed = recipe["needed"]()
    assert any(each.startswith("mypy[mypyc]") for each in needed)
    assert (
        needed == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["compiled"]
    )


@pytest.mark.parametrize(("wanted", "asked"), [("", False), ("plain", False), ("compiled", True)])
def test_what_pip_installs_before_a_build(wanted: str, asked: bool, tmp_path: Path) -> None:
    """Where mypyc is missing, as in the environment that pip makes for a build."""
    source = copied(tmp_path / "source")
    (tmp_path / "mypyc.py").write_text("raise ImportError")
    hook = "from setuptools.build_meta import get_requires_for_build_wheel as ask; print(*ask(), sep='\\n')"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "ORCHESTRATOR_BUILD": wanted, "PYTHONPATH": path}
    ended = subprocess.run(
        [sys.executable, "-c", hook],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert ("mypy[mypyc]" in ended.stdout) is asked
    assert ("types-gevent" in ended.stdout) is asked


def test_the_wheel_of_plain_python_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/bin/false")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # nothing is fetched: setuptools is here
    wheel = build(Path(sys.executable), tmp_path, compiled=False)
    assert wheel is not None and wheel.name.endswith("-py3-none-any.whl")
    with ZipFile(wheel) as made:
        names = set(made.namelist())
    assert {"orchestrator/cli/__init__.py", "orchestrator/py.typed", "orchestrator/_fast.c"} <= names
    assert not [name for name in names if name.endswith(".so") or name.startswith(("tests/", "tools/", "bench/"))]


def test_the_image_is_made_from_what_a_wheel_is_made_from() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied_there = [line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY ")]
    assert set(PARTS) <= {name for names in copied_there for name in names}
    assert "ORCHESTRATOR_BUILD=compiled" in dockerfile


def test_octets_that_end_before_they_start_are_none_when_compiled(recipe: dict[str, Any], tmp_path: Path) -> None:
    """The runtime of mypyc as it is here, not one of ours; `tests/sip` proves what is built from it."""
    runtime = tmp_path / "bytes_ops.c"
    runtime.write_text((Path(mypyc.__file__).parent / "lib-rt" / "bytes_ops.c").read_text())
    extension = setuptools.Extension("one", [str(runtime)])
    recipe["mend_slices"]([extension])
    recipe["mend_slices"]([extension])
    assert recipe["SLICE"] not in runtime.read_text() and recipe["WHOLE_SLICE"] in runtime.read_text()
    runtime.write_text("")
    with pytest.raises(RuntimeError, match="mend_slices"):
        recipe["mend_slices"]([extension])


def test_the_build_that_runs_says_so() -> None:
    assert (BUILD == "plain") is str(timers.__file__).endswith(".py")
