"""Flows as graphs: what leads where, Mermaid text that nothing in a flow can break."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.flow.loader import Source, load_program, load_sources
from orchestrator.flow.tools.graph import DECISION, ROWS, WIDTH, Graph, graph_of, mermaid

FLOWS = Path(__file__).parents[2] / "flows"


def drawn(steps: str, head: str = "on: invite", more: str = "") -> Graph:
    """The graph of one flow with these steps (indented by the caller's text as a block)."""
    body = "\n".join("      " + line for line in steps.strip("\n").splitlines())
    text = f"flowlang: 1\n{more}flows:\n  main:\n    {head}\n    do:\n{body}\n"
    program, _ = load_sources([Source("x.flow.yaml", text)])
    return graph_of(program.flow("main"))


def ways(graph: Graph) -> set[str]:
    """Every edge as `from -[text]-> to`, nodes by the first line of their text."""
    texts = {node.id: node.text.split("\n")[0] for node in graph.nodes}
    found = set()
    for edge in graph.edges:
        line = "~" if edge.dashed else "-"
        text = edge.text.replace("\n", " ")
        found.add(f"{texts[edge.source]} {line}[{text}]{line}> {texts[edge.target]}")
    return found


def test_steps_follow_each_other() -> None:
    graph = drawn("- log: one\n- log: two")
    assert ways(graph) == {
        "main: on invite -[]-> log: one",
        "log: one -[]-> log: two",
        "log: two -[]-> end of steps",
    }
    assert [node.line for node in graph.nodes] == [3, 6, 7, 0]


def test_a_condition_is_a_decision_and_no_passes_by() -> None:
    graph = drawn("- log: one\n  if: call.from.user == 1\n- log: two")
    assert {
        "call.from.user == 1 ? -[yes]-> log: one",
        "call.from.user == 1 ? -[no]-> log: two",
        "log: one -[]-> log: two",
    } <= ways(graph)
    assert [node.text for node in graph.nodes if node.kind == DECISION] == ["call.from.user == 1 ?"]


def test_then_and_else() -> None:
    steps = "- if: call.from.user == 1\n  then: [{reply: 404}, stop]\n  else: [log: other]\n- reply: 480"
    assert ways(drawn(steps)) == {
        "main: on invite -[]-> call.from.user == 1 ?",
        "call.from.user == 1 ? -[yes]-> reply: 404",
        "reply: 404 -[]-> stop",
        "call.from.user == 1 ? -[no]-> log: other",
        "log: other -[]-> reply: 480",
        "reply: 480 -[]-> end of steps",
    }


@pytest.mark.parametrize(
    ("on", "passing"),
    [
        ("{busy: [reply: 486]}", {"otherwise"}),
        ("{else: [reply: 486]}", {"answered"}),
        ("{answered: [log: x], else: [reply: 486]}", set()),
    ],
)
def test_outcomes_that_are_not_listed_go_on(on: str, passing: set[str]) -> None:
    graph = drawn(f"- relay: registered\n  on: {on}\n- log: behind")
    found = {re.sub(r".*\[|\].*", "", way) for way in ways(graph) if way.startswith("relay") and "behind" in way}
    assert found == passing


def test_outcomes_of_one_entry_share_an_edge() -> None:
    assert "relay: registered -[busy, rejected]-> reply: 486" in ways(
        drawn("- relay: registered\n  on:\n    busy, rejected: [reply: 486]")
    )


def test_a_handler_hangs_on_a_dashed_edge_and_joins_nothing() -> None:
    graph = drawn(
        "- subscribe: registered\n  for: 20s\n  do: [log: heard]\n  on_expire: [log: late]\n- relay: registered"
    )
    assert {
        "subscribe: registered ~[each registered]~> log: heard",
        "subscribe: registered ~[after 20s]~> log: late",
        "subscribe: registered -[]-> relay: registered",
    } <= ways(graph)
    assert not any(way.startswith(("log: heard", "log: late")) for way in ways(graph))


def test_a_wait_with_a_time_limit_has_two_ways_on() -> None:
    graph = drawn(
        "- wait: registered\n  where: {aor: x}\n  for: 5s\n  meanwhile: [log: ask]\n  on_timeout: [log: none]\n"
        "- reply: 480"
    )
    assert {
        "wait: registered -[registered]-> reply: 480",
        "wait: registered -[nothing for 5s]-> log: none",
        "log: none -[]-> reply: 480",
        "wait: registered ~[meanwhile]~> log: ask",
    } <= ways(graph)
    assert "where aor = x" in graph.nodes[1].text and "for 5s" in graph.nodes[1].text


def test_branches_of_first_of_carry_their_event_and_filter() -> None:
    found = ways(
        drawn(
            "- first_of:\n    - wait: dtmf\n      where: event.leg == 'callee'\n      do: [hangup: no]\n"
            "    - after: 8s\n- log: on"
        )
    )
    assert {"first_of -[dtmf leg = 'callee']-> hangup: no", "first_of -[after 8s]-> log: on"} <= found
    assert not any(way.startswith("hangup") for way in found)


def test_branches_that_do_nothing_share_an_edge() -> None:
    found = ways(drawn("- first_of:\n    - wait: dtmf\n    - after: 8s\n- log: on"))
    assert "first_of -[dtmf after 8s]-> log: on" in found


def test_hangup_with_steps_behind_it_lets_them_run() -> None:
    assert {"hangup: done -[]-> log: behind"} <= ways(drawn("- hangup: done\n- log: behind"))


def test_parallel_branches_join() -> None:
    found = ways(drawn("- parallel:\n    - [log: a]\n    - [log: b]\n- log: c"))
    assert {"log: a -[]-> log: c", "log: b -[]-> log: c"} <= found
    assert "parallel -[]-> log: c" not in found


def test_a_loop_leads_back_and_break_leaves_it() -> None:
    found = ways(drawn("- foreach: '[1, 2]'\n  item: n\n  do: [break]\n- log: behind"))
    assert "break -[]-> log: behind" in found and not any("break -[]-> foreach" in way for way in found)
    found = ways(drawn("- repeat: 3\n  do: [log: x]\n- log: behind"))
    assert {"repeat: 3 -[again]-> log: x", "log: x -[]-> repeat: 3", "repeat: 3 -[done]-> log: behind"} <= found


def test_switch() -> None:
    graph = drawn("- switch: call.from.user\n  cases:\n    1, 2: [log: low]\n    3: [log: mid]\n- log: on")
    assert {
        "switch: call.from.user -[1, 2]-> log: low",
        "switch: call.from.user -[3]-> log: mid",
        "switch: call.from.user -[otherwise]-> log: on",
    } <= ways(graph)
    graph = drawn("- switch: call.from.user\n  cases:\n    1: [log: low]\n  default: [log: rest]\n- log: on")
    assert "switch: call.from.user -[]-> log: on" not in ways(graph)
    assert "switch: call.from.user -[otherwise]-> log: rest" in ways(graph)


def test_charge_has_a_way_for_each_outcome_and_its_handlers_hang_on_it() -> None:
    graph = drawn("""
- subscribe: limit_reached
  do: [log: cut]
- charge: alice
  on:
    granted: [log: go]
    denied: [{reply: 402}, stop]
- relay: registered
""")
    found = ways(graph)
    assert {
        "charge: alice -[granted]-> log: go",
        "charge: alice -[denied]-> reply: 402",
        "log: go -[]-> relay: registered",
        "reply: 402 -[]-> stop",
    } <= found
    assert any("subscribe: limit_reached ~" in way and "log: cut" in way for way in found)
    assert not any(way.startswith("stop -") for way in found)


def test_errors_are_dashed() -> None:
    found = ways(
        drawn(
            "- try:\n    - http: http://x.example/\n  catch:\n    - error: http.*\n      do: [log: caught]\n"
            "  finally: [log: always]\n"
            "- fs.api: status\n  on_error: [log: down]\n"
            "- log: ignored\n  on_error: continue"
        )
    )
    assert {
        "try ~[error http.*]~> log: caught",
        "log: caught -[]-> log: always",
        "http: http://x.example/ -[]-> log: always",
        "fs.api: status ~[error]~> log: down",
        "log: down -[]-> log: ignored",
    } <= found


def test_on_error_and_on_end_of_the_flow_begin_by_themselves() -> None:
    text = (
        "flowlang: 1\nflows:\n  main:\n    on: invite\n    do: [relay: registered]\n"
        "    on_error: [log: failed]\n    on_end: [log: over]\n"
    )
    program, _ = load_sources([Source("x.flow.yaml", text)])
    found = ways(graph_of(program.flow("main")))
    assert {"an error nobody caught -[]-> log: failed", "the call has ended -[]-> log: over"} <= found


def test_a_flow_started_by_an_event_says_by_which() -> None:
    graph = drawn("- log: x", head="on: {event: registered, where: {mobile: true}}")
    assert graph.nodes[0].text == "main: on registered\nwhen mobile = true"


def test_long_texts_are_wrapped_and_cut() -> None:
    graph = drawn(f"- log: '{'word ' * 100}'")
    rows = graph.nodes[1].text.split("\n")
    assert len(rows) == ROWS and all(len(row) <= WIDTH for row in rows) and rows[-1].endswith(" …")


@pytest.mark.parametrize("file", sorted(FLOWS.glob("*.flow.yaml")), ids=lambda file: file.stem)
def test_every_step_of_the_shipped_flows_is_reached(file: Path) -> None:
    program, _ = load_program([file])
    for flow in program.flows:
        graph = graph_of(flow)
        targets = {edge.target for edge in graph.edges}
        assert all(node.id in targets or node.kind == "begin" for node in graph.nodes)
        assert all(edge.source in {node.id for node in graph.nodes} for edge in graph.edges)


# --- Mermaid ----------------------------------------------------------------------------------------------------------


def test_mermaid() -> None:
    text = mermaid(drawn("- subscribe: dtmf\n  do: [stop]\n- relay: registered\n  on: {busy: [reply: 486]}"))
    assert text == (
        "flowchart TD\n"
        '    n1(["main: on invite"])\n'
        '    n2[/"subscribe: dtmf"/]\n'
        '    n3["stop"]\n'
        '    n4[/"relay: registered"/]\n'
        '    n5["reply: 486"]\n'
        '    n6(["end of steps"])\n'
        "    n1 --> n2\n"
        '    n2 -.->|"each dtmf"| n3\n'
        "    n2 --> n4\n"
        '    n4 -->|"busy"| n5\n'
        '    n4 -->|"otherwise"| n6\n'
        "    n5 --> n6\n"
    )


def test_nothing_in_a_flow_ends_a_text() -> None:
    text = mermaid(drawn("- log: 'a \"] --> b; <b>#x</b> & `c`'"))
    (row,) = [row for row in text.splitlines() if "log" in row]
    assert row == "    n2[\"log: 'a #quot;] --#gt; b; #lt;b#gt;#35;x#lt;/b#gt; #amp; #96;c#96;'\"]"
