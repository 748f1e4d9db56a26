"""The page of states is drawn from the tables."""

from __future__ import annotations

from pathlib import Path

from orchestrator.flow.run.account import Phase
from orchestrator.flow.run.run import PHASES
from tools.diagrams import PAGE, diagram, tables, written

ROOT = Path(__file__).parents[2]


def test_the_page_shows_every_table_as_it_is() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page == written(page), "write it anew: python -m tools.diagrams"
    for name in tables():
        assert f"<!-- diagram: {name} -->\n```mermaid\n" in page


def test_a_diagram_has_one_arrow_for_each_pair_of_states() -> None:
    drawn = diagram({"a": {"x": "b", "y": "b", "z": "a"}, "b": {}})
    assert drawn.splitlines()[2:-1] == ["    [*] --> a", "    a --> b: x, y", "    a --> a: z", "    b --> [*]"]


def test_every_state_of_every_table_leads_to_an_end_or_back_and_can_be_reached() -> None:
    for name, states in tables().items():
        reached = {next(iter(states))}
        for _ in states:
            reached |= {then for state in reached for then in states[state].values()}
        assert reached == set(states), name
        ends = {state for state, row in states.items() if not row}
        for _ in states:
            ends |= {state for state, row in states.items() if ends.intersection(row.values())}
        assert ends == set(states) or name == "peer", name


def test_every_phase_of_a_run_is_in_its_table() -> None:
    assert set(PHASES) == set(Phase)
    assert PHASES[Phase.DONE] == {}
