"""A flow's graph as SVG: no browser, no program to install.

Text is monospaced, so its width is known without measuring. The drawing is one file without scripts, styles from
elsewhere or fonts, dark on light, and shows the same in a README, a browser and a viewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from xml.sax.saxutils import escape

from orchestrator.flow.tools.graph import BEGIN, CALL, DECISION, END, STEP, WAIT, Graph, Node
from orchestrator.flow.tools.layout import Point, lay_out

SIZE = 12
"""Height of the letters in pixels."""
ADVANCE = 0.602 * SIZE
"""Width of a letter: that of DejaVu Sans Mono, the widest of the common monospaced faces."""
ROW = 16
PADDING = 9
ALONG = 0.75
"""Where the text of an edge stands between its ends, across."""

_COLOURS = {
    BEGIN: ("#1f4e79", "#1f4e79", "#ffffff"),
    END: ("#e9ecef", "#868e96", "#343a40"),
    STEP: ("#f8f9fa", "#495057", "#212529"),
    DECISION: ("#fff3bf", "#e67700", "#212529"),
    WAIT: ("#d0ebff", "#1971c2", "#212529"),
    CALL: ("#e5dbff", "#6741d9", "#212529"),
}
"""Kind → (fill, line, text). Blue waits, yellow decides."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a drawing says of the steps of one line: it is `lit` (a thick frame and a yellow ground), was `passed` (a
    thick frame); `note` stands at its corner, `trouble` beside it in red."""

    lit: bool = False
    passed: bool = False
    note: str = ""
    trouble: str = ""


_LIT = ("#ffe066", "#e67700", "#212529")
_NO_MARKS: Mapping[int, Mark] = MappingProxyType({})
_PLAIN = Mark()


def svg(graph: Graph, marks: Mapping[int, Mark] = _NO_MARKS) -> str:
    """The drawing, with a final line feed; `marks`: line of the file → what is said of it. With marks each node is a
    group of the classes `node` and its kind, and `lit` or `passed`."""
    sizes = {node.id: _size(node) for node in graph.nodes}
    room = {number: _width(edge.text) for number, edge in enumerate(graph.edges) if edge.text}
    reserved = dict(sizes)
    for number, width in room.items():  # the text of an edge stands above the node it leads to
        target = graph.edges[number].target
        reserved[target] = (max(reserved[target][0], width), reserved[target][1])
    layout = lay_out(reserved, [(edge.source, edge.target) for edge in graph.edges], room)
    width, height = round(layout.width), round(layout.height)
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{SIZE}">',
        f"<title>{escape(graph.name)}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#495057"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for edge, way in zip(graph.edges, layout.edges, strict=True):
        dash = ' stroke-dasharray="5 4"' if edge.dashed else ""
        rows.append(f'<path d="{_curve(way)}" fill="none" stroke="#495057"{dash} marker-end="url(#arrow)"/>')
    for node in graph.nodes:
        mark = marks.get(node.line, _PLAIN) if marks else None
        rows.append(_shape(node, layout.nodes[node.id], sizes[node.id], mark))
    rows += [_label(edge.text, way) for edge, way in zip(graph.edges, layout.edges, strict=True) if edge.text]
    return "\n".join([*rows, "</svg>"]) + "\n"


def _size(node: Node) -> Point:
    extra = 2 * ROW if node.kind == DECISION else 0
    return _width(node.text) + 2 * PADDING + extra, (node.text.count("\n") + 1) * ROW + 2 * PADDING


def _width(text: str) -> float:
    return max(map(len, text.split("\n"))) * ADVANCE


def _shape(node: Node, centre: Point, size: Point, mark: Mark | None) -> str:
    fill, line, ink = _LIT if mark is not None and mark.lit else _COLOURS[node.kind]
    (x, y), (width, height) = centre, size
    left, top = x - width / 2, y - height / 2
    if node.kind == DECISION:
        corners = [(left, y), (left + ROW, top), (x + width / 2 - ROW, top), (x + width / 2, y)]
        corners += [(x + width / 2 - ROW, top + height), (left + ROW, top + height)]
        body = f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"'
    else:
        radius = height / 2 if node.kind in (BEGIN, END) else 4
        body = f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:.1f}"'
    place = f"<title>line {node.line}</title>" if node.line else ""
    if mark is None:
        return f'<g>{place}{body} fill="{fill}" stroke="{line}"/>{_text(node.text, x, y, ink)}</g>'
    wide = ' stroke-width="2.5"' if mark.lit or mark.passed else ""
    names = f"node {node.kind}{' lit' if mark.lit else ''}{' passed' if mark.passed else ''}"
    shape = f'{body} fill="{fill}" stroke="{line}"{wide}/>{_text(node.text, x, y, ink)}'
    return f'<g class="{names}">{place}{shape}{_notes(mark, x + width / 2, top)}</g>'


def _notes(mark: Mark, right: float, top: float) -> str:
    """What stands at the corner of a node, above its frame."""
    if not mark.note and not mark.trouble:
        return ""
    red = f'<tspan class="trouble" fill="#c92a2a"> {escape(mark.trouble)}</tspan>' if mark.trouble else ""
    return (
        f'<text class="note" x="{right:.1f}" y="{top - 3:.1f}" text-anchor="end" font-size="{SIZE - 1}" '
        f'fill="#495057">{escape(mark.note)}{red}</text>'
    )


def _text(text: str, x: float, y: float, ink: str) -> str:
    rows = text.split("\n")
    first = y - (len(rows) - 1) * ROW / 2 + SIZE * 0.35
    spans = "".join(f'<tspan x="{x:.1f}" y="{first + n * ROW:.1f}">{escape(row)}</tspan>' for n, row in enumerate(rows))
    return f'<text text-anchor="middle" fill="{ink}">{spans}</text>'


def _curve(way: Sequence[Point]) -> str:
    """A smooth line through the points: upright where it begins, bends and ends."""
    (x, y), *rest = way
    path = f"M{x:.1f},{y:.1f}"
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        path += f" C{x:.1f},{middle:.1f} {to_x:.1f},{middle:.1f} {to_x:.1f},{to_y:.1f}"
        x, y = to_x, to_y
    return path


def _label(text: str, way: Sequence[Point]) -> str:
    """The text of an edge, towards the end of its first stretch, where edges of one node have parted; on white, so
    that lines behind it do not hurt."""
    (x1, y1), (x2, y2) = way[0], way[1]
    x, y = x1 + ALONG * (x2 - x1), y1 + 0.5 * (y2 - y1)
    width, height = _width(text) + 6, (text.count("\n") + 1) * ROW
    ground = f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height}" '
    return ground + f'fill="#ffffff" fill-opacity="0.9"/>{_text(text, x, y, "#495057")}'
