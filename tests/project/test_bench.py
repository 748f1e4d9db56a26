"""`make bench`: every benchmark is in its table, the quick ones run, and what a run finds is kept."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest

from bench import bus, expr, parse
from bench.__main__ import BENCHES, Outcome, measure, read
from bench.figures import Absent, Figure, Skipped, middle, ratios, render


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
