"""The graph of a flow with what has happened in it, and the counts it shows."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.tools.graph import graph_of
from orchestrator.flow.tools.svg import Mark, svg
from orchestrator.testing.world import World
from orchestrator.views.flow_graph import graph_of_run, graph_with_counts
from orchestrator.views.step_counts import StepCount, step_counts

FLOW = """flowlang: 1
flows:
  main:
    on: invite
    do:
      - reply: 183
      - if: call.target.user == 'nobody'
        then: [fail: user.unknown]
      - relay: {to: registered, ring: 30s}
"""


def world() -> World:
    program, _ = load_sources([Source("x.flow.yaml", FLOW)])
    return World(program)


def classes(drawing: str) -> dict[int, str]:
    """Line → classes of its node."""
    return {int(line): names for names, line in re.findall(r'<g class="([^"]*)"><title>line (\d+)</title>', drawing)}


def test_the_line_a_run_waits_at_is_lit() -> None:
    flow = world().engine.flows.program.flows[0]
    drawing = graph_of_run(flow, 9, {3, 6, 7})
    ElementTree.fromstring(drawing)
    found = classes(drawing)
    assert found[9] == "node wait lit passed"
    assert found[6] == "node step passed"
    assert found[8] == "node step"


def test_a_drawing_without_marks_is_as_it_was() -> None:
    flow = world().engine.flows.program.flows[0]
    assert "class=" not in svg(graph_of(flow))
    assert "lit" not in graph_of_run(flow, 0, ()) and "passed" not in graph_of_run(flow, 0, ())


def test_runs_are_counted_once_for_each_step_they_came_by() -> None:
    scene = world()
    alice = scene.registered_phone("alice@example.com", "10.0.0.2")
    scene.registered_phone("bob@example.com", "10.0.0.3")
    for user in ("bob", "bob", "nobody", "nobody", "nobody"):
        alice.invite(f"{user}@example.com")
    scene.run(1)
    flow = scene.engine.flows.program.flows[0]
    breaths: list[None] = []
    counts = step_counts(scene.engine, flow, lambda: breaths.append(None))
    assert counts.runs == 5
    assert counts.lines[6] == StepCount(5, 0)
    assert counts.lines[8] == StepCount(3, 3)
    assert counts.lines[9] == StepCount(2, 0)  # two ring
    assert breaths == []

    drawing = graph_with_counts(flow, counts.lines)
    ElementTree.fromstring(drawing)
    assert re.search(r'<text class="note"[^>]*>3<tspan class="trouble"[^>]*> 3</tspan></text>', drawing)


def test_runs_of_another_version_do_not_count() -> None:
    scene = world()
    alice = scene.registered_phone("alice@example.com", "10.0.0.2")
    alice.invite("nobody@example.com")
    scene.run(1)
    program, _ = load_sources([Source("x.flow.yaml", FLOW + "\n# another version\n")])
    scene.engine.load(program, scene.engine.site)
    assert step_counts(scene.engine, program.flows[0]).runs == 0


def test_notes_are_text() -> None:
    graph = graph_of(world().engine.flows.program.flows[0])
    drawing = svg(graph, {6: Mark(note="<b>", trouble='"&')})
    ElementTree.fromstring(drawing)
    assert "&lt;b&gt;" in drawing
