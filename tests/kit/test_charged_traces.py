"""A test out of a charged call: it has the balance, the delay and the words of CGRateS, and comes true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_charged_stories import FLOW, HEAD, STORIES, UP

from orchestrator.flow.run.trace import Trace, facts, summary
from orchestrator.testing.case_files import load_cases
from orchestrator.testing.case_from_trace import case_from_trace
from orchestrator.testing.world import WALL


def as_json(trace: Trace) -> dict[str, Any]:
    told = {**summary(trace, False, WALL), "dropped": trace.dropped, "records": list(facts(trace))}
    return dict(json.loads(json.dumps(told)))


def lines(trace: Trace) -> list[tuple[float, int, str]]:
    return [(round(line.time - trace.records[0].time, 2), line.line, line.text) for line in trace.records]


@pytest.mark.parametrize("name", [name for name in STORIES if name != "an effects rule goes first"])
def test_it_has_the_same_trace(tmp_path: Path, name: str) -> None:
    (tmp_path / "prepaid.flow.yaml").write_text(FLOW)
    story = STORIES[name]
    (tmp_path / "x.test.yaml").write_text(HEAD + (story % UP if "%s" in story else story))
    for case in load_cases(tmp_path / "x.test.yaml"):
        for trace in case.run().story.traces():
            written = tmp_path / "made.test.yaml"
            written.write_text(case_from_trace(as_json(trace), tmp_path))
            (made,) = load_cases(written)
            outcome = made.run()
            assert outcome.passed, [*map(str, outcome.failures), written.read_text()]
            (again,) = outcome.story.traces()
            # why CGRateS is away is for the test to say
            assert [line for line in lines(again) if "error:" not in line[2]] == [
                line for line in lines(trace) if "error:" not in line[2]
            ], written.read_text()
            assert yaml.safe_load(written.read_text())["tests"][0]["given"]["cgrates"]
