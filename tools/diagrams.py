"""State diagrams of the project's tables, in Mermaid, between the markers of a page.

    python -m tools.diagrams [page]

Writes docs/states.md anew. Nothing is drawn by hand: a table is what the program runs by, so its diagram cannot be
wrong about it, and a test holds the page against the tables.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.calls.flow_call import CALL
from orchestrator.core.probes import WATCH
from orchestrator.core.steps.relay import RELAY
from orchestrator.flow.run.charging import SESSION
from orchestrator.flow.run.run import PHASES
from orchestrator.runtime.streams.stream import TABLE as CONNECTION
from orchestrator.sip.client import INVITE_CLIENT, NON_INVITE_CLIENT
from orchestrator.sip.server import INVITE_SERVER, NON_INVITE_SERVER

PAGE = Path("docs/states.md")

States = Mapping[str, Mapping[str, str]]
"""State → input → next state; the first one is where it begins."""

_PART = re.compile(r"(<!-- diagram: (?P<name>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables() -> dict[str, States]:
    """Name of a diagram → its table."""
    transactions: Mapping[str, Mapping[str, Mapping[str, tuple[Any, ...]]]] = {
        "INVITE client": INVITE_CLIENT,
        "non-INVITE client": NON_INVITE_CLIENT,
        "INVITE server": INVITE_SERVER,
        "non-INVITE server": NON_INVITE_SERVER,
        "peer": WATCH,
    }
    return {
        **{name: {s: {i: e[0] for i, e in row.items()} for s, row in t.items()} for name, t in transactions.items()},
        "connection": {state: {what: entry[0] for what, entry in row.items()} for state, row in CONNECTION.items()},
        "relay": RELAY,
        "call": {state: {what: move.state for what, move in row.items()} for state, row in CALL.items()},
        "charge": {state: {what: step.state for what, step in row.items()} for state, row in SESSION.items()},
        "run": {phase.value: {what: then.value for what, then in row.items()} for phase, row in PHASES.items()},
    }


def diagram(states: States) -> str:
    """A table as a Mermaid state diagram: one arrow for each pair of states, with the inputs that lead along it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, row in states.items():
        for what, then in row.items():
            arrows.setdefault((state, then), []).append(what)
    lines = [f"    [*] --> {next(iter(states))}"]
    lines += [f"    {state} --> {then}: {', '.join(inputs)}" for (state, then), inputs in arrows.items()]
    lines += [f"    {state} --> [*]" for state, row in states.items() if not row]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def written(page: str) -> str:
    """The page with every diagram drawn anew. Raises KeyError for the name of a table that is not there."""
    drawn = tables()
    return _PART.sub(lambda part: f"{part[1]}{diagram(drawn[part['name']])}\n{part[3]}", page)


def main(page: str = str(PAGE)) -> int:
    """Write the page."""
    path = Path(page)
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
