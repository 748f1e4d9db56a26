"""Where the nodes of a graph go: a layered drawing, top to bottom (after Sugiyama, Tagawa and Toda, 1981).

Four steps, each the simplest that reads well for flows of some dozens of nodes:

1. Edges that lead back (loops) are turned round, so that the rest has a direction.
2. A node's layer is the longest way to it. An edge over several layers gets a *bend* in each, so that no edge runs
   through a node.
3. Within a layer, nodes are ordered by the mean place of their neighbours, down and up in turn, and the order with the
   fewest crossings is kept.
4. Columns: every node moves to the mean of its neighbours as far as its own neighbours in the layer let it.

Units are those of the caller (pixels for SVG). No library does this in pure Python that is still kept; Graphviz would
be a program to install.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS = 12
"""Passes over the layers; more change nothing in graphs of this size."""

Size = tuple[float, float]
Point = tuple[float, float]


@dataclass(slots=True)
class Layout:
    """Centre of each node, the points each edge passes (from its source's border to its target's), and the size of
    it all."""

    nodes: dict[str, Point] = field(default_factory=dict)
    edges: list[list[Point]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def lay_out(
    sizes: Mapping[str, Size],
    edges: Sequence[tuple[str, str]],
    room: Mapping[int, float] | None = None,
    gap: float = 36.0,
    rise: float = 56.0,
) -> Layout:
    """Place nodes of these sizes. `gap` is the least distance within a layer, `rise` between two layers; `room` is how
    wide an edge, by its number, is at its first bend: its text stands there."""
    return _Placer(sizes, edges, room or {}, gap, rise).place()


class _Placer:
    def __init__(
        self,
        sizes: Mapping[str, Size],
        edges: Sequence[tuple[str, str]],
        room: Mapping[int, float],
        gap: float,
        rise: float,
    ) -> None:
        self.sizes = dict(sizes)
        self.room = room
        self.edges = list(edges)
        self.gap = gap
        self.rise = rise
        self.layer: dict[str, int] = {}
        self.layers: list[list[str]] = []
        self.chains: list[list[str]] = []
        """For each edge, downwards: its upper node, its bends, its lower node."""
        self.above: dict[str, list[str]] = {}
        self.below: dict[str, list[str]] = {}
        self.x: dict[str, float] = {}

    def place(self) -> Layout:
        back = self._backward()
        forward = [(b, a) if n in back else (a, b) for n, (a, b) in enumerate(self.edges)]
        self._assign_layers([(a, b) for a, b in forward if a != b])
        self._add_bends(forward)
        self._order()
        self._columns()
        return self._finish(back)

    def _backward(self) -> set[int]:
        """Edges that close a circle, found depth first in the order of the nodes."""
        out: dict[str, list[tuple[int, str]]] = {name: [] for name in self.sizes}
        for number, (source, target) in enumerate(self.edges):
            out[source].append((number, target))
        back: set[int] = set()
        done: set[str] = set()
        for root in self.sizes:
            path, stack = {root}, [(root, iter(out[root]))]
            while stack and root not in done:
                name, rest = stack[-1]
                for number, target in rest:
                    if target in path:
                        back.add(number)
                    elif target not in done:
                        path.add(target)
                        stack.append((target, iter(out[target])))
                        break
                else:
                    stack.pop()
                    path.discard(name)
                    done.add(name)
        return back

    def _assign_layers(self, edges: Sequence[tuple[str, str]]) -> None:
        self.layer = dict.fromkeys(self.sizes, 0)
        for _ in self.sizes:  # the longest way has fewer edges than there are nodes
            changed = False
            for source, target in edges:
                if self.layer[target] <= self.layer[source]:
                    self.layer[target] = self.layer[source] + 1
                    changed = True
            if not changed:
                break

    def _add_bends(self, edges: Sequence[tuple[str, str]]) -> None:
        self.layers = [[] for _ in range(max(self.layer.values(), default=0) + 1)]
        for name in self.sizes:
            self.layers[self.layer[name]].append(name)
        for number, (upper, lower) in enumerate(edges):
            bends = [f"bend {number} {level}" for level in range(self.layer[upper] + 1, self.layer[lower])]
            for level, bend in enumerate(bends, self.layer[upper] + 1):
                self.sizes[bend] = (self.room.get(number, 0.0) if bend == bends[0] else 0.0, 0.0)
                self.layers[level].append(bend)
            self.chains.append([upper, *bends, lower])
        self.above = {name: [] for name in self.sizes}
        self.below = {name: [] for name in self.sizes}
        for chain in self.chains:
            for upper, lower in pairwise(chain):
                if upper != lower:
                    self.below[upper].append(lower)
                    self.above[lower].append(upper)

    def _order(self) -> None:
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        for sweep in range(SWEEPS):
            down = sweep % 2 == 0
            near = self.above if down else self.below
            for layer in self.layers if down else reversed(self.layers):
                places = {name: n for row in self.layers for n, name in enumerate(row)}
                mean = {name: _mean([places[other] for other in near[name]], places[name]) for name in layer}
                layer.sort(key=mean.__getitem__)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def _crossings(self) -> int:
        total = 0
        for upper, lower in pairwise(self.layers):
            place = {name: n for n, name in enumerate(lower)}
            ends = [place[other] for name in upper for other in sorted(self.below[name], key=place.__getitem__)]
            total += sum(a > b for n, a in enumerate(ends) for b in ends[n + 1 :])
        return total

    def _columns(self) -> None:
        for layer in self.layers:
            edge = 0.0
            for name in layer:
                self.x[name] = edge + self.sizes[name][0] / 2
                edge += self.sizes[name][0] + self.gap
        for sweep in range(SWEEPS):
            near = (self.above, self.below)[sweep % 2]
            for layer in self.layers if sweep % 2 == 0 else reversed(self.layers):
                wanted = [_mean([self.x[other] for other in near[name]], self.x[name]) for name in layer]
                self._spread(layer, wanted)

    def _spread(self, layer: Sequence[str], wanted: Sequence[float]) -> None:
        """Put a layer's nodes as near to where they want to be as their widths allow: from the left and from the right,
        and in the middle of both."""
        half = [self.sizes[name][0] / 2 for name in layer]
        left, right = list(wanted), list(wanted)
        for n in range(1, len(layer)):
            left[n] = max(left[n], left[n - 1] + half[n - 1] + half[n] + self.gap)
        for n in range(len(layer) - 2, -1, -1):
            right[n] = min(right[n], right[n + 1] - half[n + 1] - half[n] - self.gap)
        for name, a, b in zip(layer, left, right, strict=True):
            self.x[name] = (a + b) / 2

    def _finish(self, back: set[int]) -> Layout:
        margin = self.gap / 2
        least = min((self.x[name] - self.sizes[name][0] / 2 for name in self.x), default=0.0) - margin
        points: dict[str, Point] = {}
        top = margin
        for layer in self.layers:
            height = max(self.sizes[name][1] for name in layer)
            for name in layer:
                points[name] = (self.x[name] - least, top + height / 2)
            top += height + self.rise
        layout = Layout(height=top - self.rise + margin)
        layout.width = max((points[n][0] + self.sizes[n][0] / 2 for n in points), default=0.0) + margin
        layout.nodes = {name: point for name, point in points.items() if not name.startswith("bend ")}
        for number, chain in enumerate(self.chains):
            way = [self._border(points, chain[0], 1), *(points[bend] for bend in chain[1:-1])]
            way.append(self._border(points, chain[-1], -1))
            layout.edges.append(way[::-1] if number in back else way)
        return layout

    def _border(self, points: Mapping[str, Point], name: str, side: int) -> Point:
        x, y = points[name]
        return x, y + side * self.sizes[name][1] / 2


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
