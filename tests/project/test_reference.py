"""docs/language.md says what the registries say; the pages of flows show the flows that are shipped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reference_tables import PAGE, TABLES, filled

from orchestrator.flow.language.registry import ACTIONS
from orchestrator.flow.language.suggest import FOREIGN_ACTIONS
from orchestrator.flow.loader import load_program

ROOT = Path(__file__).parents[2]
SHOWN_WHOLE = ("push_wakeup", "dtmf_screening", "call_pickup")


def test_the_tables_are_those_of_the_registries() -> None:
    text = PAGE.read_text()
    assert filled(text) == text, "run python tests/project/reference_tables.py"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_its_place(name: str) -> None:
    assert PAGE.read_text().count(f"<!-- {name} -->") == 1


@pytest.mark.parametrize("name", SHOWN_WHOLE)
def test_the_flow_of_a_page_is_the_one_that_is_shipped(name: str) -> None:
    page = (ROOT / "docs" / "flows" / f"{name}.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert shown == (ROOT / "flows" / f"{name}.flow.yaml").read_text()


@pytest.mark.parametrize("name", SHOWN_WHOLE)
def test_a_page_names_flows_tests_and_a_picture(name: str) -> None:
    page = (ROOT / "docs" / "flows" / f"{name}.md").read_text()
    assert "```mermaid\nsequenceDiagram" in page
    for flow in load_program([ROOT / "flows" / f"{name}.flow.yaml"])[0].flows:
        assert f"`orchestrator graph {flow.name}`" in page or f"`{flow.name}`" in page
    assert f"orchestrator test tests/flows/{name}.test.yaml" in page
    assert (ROOT / "tests" / "flows" / f"{name}.test.yaml").exists()


def test_the_guide_from_opensips_leads_to_actions_there_are() -> None:
    """What the guide's table puts beside a function is an action, and the one the checker suggests for it."""
    page = (ROOT / "docs" / "from-opensips.md").read_text().partition("| pseudo-variable")[0]
    rows = re.findall(r"^\| `(\w+)[^|]*` \| `([\w.]+)", page, re.MULTILINE)
    assert len(rows) > 15
    for function, action in rows:
        if action in ("services", "sinks"):  # sections of the configuration: a module became an integration
            continue
        assert action in ACTIONS or action in ("on", "when", "keep_open", "if"), (function, action)
        if function in FOREIGN_ACTIONS and action in ACTIONS and function != "launch":  # of what, decides
            assert FOREIGN_ACTIONS[function] == action, function
