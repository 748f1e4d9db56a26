"""Drawings: nothing overlaps, every edge ends at its nodes, the file is well-formed and holds every text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.flow.loader import load_program
from orchestrator.flow.tools.graph import Edge, Graph, Node, graph_of
from orchestrator.flow.tools.layout import Layout, lay_out
from orchestrator.flow.tools.svg import svg

FLOWS = sorted((Path(__file__).parents[2] / "flows").glob("*.flow.yaml"))
NAMESPACE = "{http://www.w3.org/2000/svg}"

graphs = st.integers(1, 14).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(st.integers(20, 300), st.integers(20, 90)), min_size=n, max_size=n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=25),
    )
)


def laid_out(sizes: Sequence[tuple[int, int]], edges: Sequence[tuple[int, int]]) -> Layout:
    names = {f"n{number}": (float(width), float(height)) for number, (width, height) in enumerate(sizes)}
    return lay_out(names, [(f"n{a}", f"n{b}") for a, b in edges])


@settings(deadline=None, max_examples=150)
@given(graphs)
def test_nodes_never_overlap_and_stay_inside(
    graph: tuple[list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    sizes, edges = graph
    layout = laid_out(sizes, edges)
    boxes = []
    for number, (width, height) in enumerate(sizes):
        x, y = layout.nodes[f"n{number}"]
        boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    for left, top, right, bottom in boxes:
        assert left >= 0 and top >= 0 and right <= layout.width and bottom <= layout.height
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] + 1e-6 or b[2] <= a[0] + 1e-6 or a[3] <= b[1] + 1e-6 or b[3] <= a[1] + 1e-6


@settings(deadline=None, max_examples=150)
@given(graphs)
def test_every_edge_goes_from_its_source_to_its_target(
    graph: tuple[list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    sizes, edges = graph
    layout = laid_out(sizes, edges)
    assert len(layout.edges) == len(edges)
    for (source, target), way in zip(edges, layout.edges, strict=True):
        for number, (x, y) in ((source, way[0]), (target, way[-1])):
            centre, half = layout.nodes[f"n{number}"], sizes[number][1] / 2
            assert x == pytest.approx(centre[0]) and abs(y - centre[1]) == pytest.approx(half)


def test_what_follows_stands_below() -> None:
    layout = laid_out([(50, 20)] * 3, [(0, 1), (1, 2), (2, 0)])
    assert layout.nodes["n0"][1] < layout.nodes["n1"][1] < layout.nodes["n2"][1]
    assert layout.edges[2][0][1] > layout.edges[2][-1][1], "the way back leads upwards"


def test_an_edge_over_several_layers_bends_around_what_is_between() -> None:
    layout = laid_out([(200, 20)] * 3, [(0, 1), (1, 2), (0, 2)])
    way = layout.edges[2]
    assert len(way) == 3
    x, y = layout.nodes["n1"]
    assert way[1][1] == y and abs(way[1][0] - x) > 100


def test_crossings_are_undone() -> None:
    """Two parents above, their children in the wrong order."""
    layout = laid_out([(50, 20)] * 4, [(0, 3), (1, 2)])
    assert (layout.nodes["n0"][0] < layout.nodes["n1"][0]) == (layout.nodes["n3"][0] < layout.nodes["n2"][0])


def texts(drawing: str) -> list[str]:
    root = ElementTree.fromstring(drawing)
    return ["\n".join(span.text or "" for span in text) for text in root.iter(f"{NAMESPACE}text")]


@pytest.mark.parametrize("file", FLOWS, ids=lambda file: file.stem)
def test_the_drawing_of_a_flow_holds_every_text(file: Path) -> None:
    program, _ = load_program([file])
    for flow in program.flows:
        graph = graph_of(flow)
        drawn = texts(svg(graph))
        assert sorted(drawn) == sorted([n.text for n in graph.nodes] + [e.text for e in graph.edges if e.text])


def test_texts_are_escaped() -> None:
    graph = Graph("a & b", [Node("n1", "<x> & 'y'"), Node("n2", "b", "decision")], [Edge("n1", "n2", "a<b")])
    assert texts(svg(graph)) == ["<x> & 'y'", "b", "a<b"]


def test_what_runs_beside_is_dashed() -> None:
    nodes = [Node("n1", "a"), Node("n2", "b")]
    assert "stroke-dasharray" in svg(Graph("x", nodes, [Edge("n1", "n2", dashed=True)]))
    assert "stroke-dasharray" not in svg(Graph("x", nodes, [Edge("n1", "n2")]))
