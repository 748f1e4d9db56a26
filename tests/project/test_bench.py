"""`make bench`: every benchmark is in its table, the quick ones run, and what a run finds is kept."""

from __future__ import annotations

import inspect
import json
import os
import select
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bench import bus, expr, parse, published
from bench.__main__ import BENCHES, Outcome, measure, read
from bench.figures import Absent, Figure, Skipped, middle, ratios, render
from bench.servers import ROOT


def test_what_measures_is_in_the_table() -> None:
    assert {"relay", "wakeup", "bus", "media"} <= set(BENCHES)
    assert not {"servers", "phones", "figures", "peers"} & set(BENCHES)


@pytest.mark.parametrize("name", BENCHES)
def test_a_quick_run_has_arguments_that_exist(name: str) -> None:
    module = import_module(f"bench.{name}")
    assert set(getattr(module, "QUICK", {})) <= set(inspect.signature(module.figures).parameters)


def test_pure_benches_run() -> None:
    """They call the program's own functions, which change."""
    for found in (
        list(bus.figures((3, 10, 20), rounds=1)),
        list(expr.figures(400, rounds=1)),
        list(parse.figures(1, rounds=1)),
    ):
        assert all(figure.value >= 0 for figure in found if isinstance(figure, Figure))


def test_the_median_stands_between_the_least_and_the_greatest() -> None:
    figure = middle("CPU", [3.0, 1.0, 2.0], "µs", most=2.5)
    assert (figure.value, figure.low, figure.high, figure.verdict) == (2.0, 1.0, 3.0, "met")
    assert figure.spread == "1–3"
    assert Figure("one", 999.7).spread == ""
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_what_is_missing_is_named_below_the_table() -> None:
    table = render([("relay", [Figure("CPU", 1234.5, "µs"), Absent("Kamailio", "Debian: kamailio")])])
    assert table.splitlines()[1].split() == ["relay", "CPU", "1,234", "µs"]
    assert table.splitlines()[-1] == "missing: relay: Kamailio (Debian: kamailio)"


def test_figures_measured_before_a_failure_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rounds: int = 3, count: int = 1) -> object:
        yield Figure("first", 1.0)
        yield Absent("a peer", "install it")
        raise RuntimeError

    monkeypatch.setattr(parse, "figures", broken)
    with pytest.raises(RuntimeError):
        measure("parse", tmp_path / "figures", quick=True)
    found = read(tmp_path / "figures")
    assert found.figures == [Figure("first", 1.0), Absent("a peer", "install it")]
    assert json.dumps(found.plain())
    assert not Outcome(found.figures, failed="ended with status 1").good


def test_a_benchmark_that_cannot_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(rounds: int = 3, count: int = 1) -> object:
        raise Skipped("SIPp is not installed")
        yield

    monkeypatch.setattr(parse, "figures", absent)
    measure("parse", tmp_path / "figures", quick=False)
    assert read(tmp_path / "figures").skipped == "SIPp is not installed"
    assert read(tmp_path / "none") == Outcome([])


def test_the_figures_of_the_readme_are_those_of_a_run() -> None:
    kept = json.loads(published.KEPT.read_text())
    assert published.section(kept) in published.README.read_text(), "python -m bench.published makes it anew"
    assert not kept["quick"], "a quick run is not to quote"


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_each_published_figure_has_its_command(name: str) -> None:
    """And a name that its benchmark gives: its words, without the numbers, stand in the source."""
    assert name in BENCHES
    kept = json.loads(published.KEPT.read_text())["benchmarks"].get(name)
    found = {figure["name"] for figure in kept["figures"]} if kept else set()
    missing = set(published.PUBLISHED[name]) - found if found else set()
    assert not {title for title in missing if "beside" not in title}, "only a peer may be missing"


def test_a_figure_that_was_not_measured_is_left_out() -> None:
    figure = {"name": "calls per core beside Kamailio", "value": 0.5, "unit": "x", "low": 0.4, "high": 0.61}
    table = published.table({"benchmarks": {"capacity": {"figures": [figure]}}})
    assert table.splitlines()[2:] == ["| calls per core beside Kamailio | 0.5 × | 0.4–0.61 | `'--only capacity'` |"]


def test_a_bench_that_is_killed_leaves_no_server(tmp_path: Path) -> None:
    """kill -9: what it has started is told by the kernel."""
    code = f"""
import sys
from pathlib import Path
from bench.servers import Server
server = Server([sys.executable, "-c", "import time; time.sleep(60)"], Path({str(tmp_path)!r}))
print(server.process.pid, flush=True)
server.process.wait()
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        server = os.pidfd_open(int(bench.stdout.readline()))
        bench.kill()
    try:
        assert select.select([server], [], [], 20.0)[0], "it goes on"
    finally:
        os.close(server)
