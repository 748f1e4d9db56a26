"""The figures of the README: a table made of a run that `--json` has kept in docs/figures.json.

    make bench ARGS='--json docs/figures.json'      a quiet machine, all peers installed
    python -m bench.published                       puts the table into the README

A figure keeps the name that the benchmark gives it, and stands beside the command that measures it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Figure, shown
from bench.servers import ROOT

KEPT = ROOT / "docs" / "figures.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- figures: python -m bench.published -->", "<!-- end of figures -->"

PUBLISHED: Mapping[str, Sequence[str]] = {
    "relay": (
        "orchestrator: CPU per call at 300 per second",
        "CPU per relayed call at 300 per second, beside Kamailio",
        "CPU per relayed call at 2,400 per second, beside Kamailio",
    ),
    "one_step": (
        "the same at 300 per second beside kamailio python",
        "the same at 2,400 per second beside kamailio python",
    ),
    "capacity": ("calls per core beside Kamailio", "calls per core beside sippy's B2BUA"),
    "wakeup": (
        "orchestrator: wake-up, 30,000 waiting: CPU",
        "CPU per wake-up, 30,000 calls parked beside 300",
        "CPU per wake-up beside OpenSIPS, 300 calls parked",
        "CPU per wake-up beside OpenSIPS, 10,000 calls parked",
        "CPU per wake-up beside OpenSIPS, 30,000 calls parked",
        "CPU to park a call, beside OpenSIPS",
        "memory per parked call",
        "memory per parked call, beside OpenSIPS",
    ),
    "media": ("CPU per call through FreeSWITCH at 20 per second", "ours beside FreeSWITCH"),
    "registrar": ("CPU per refresh, 100,000 bindings in SQLite beside 1,000", "start with 100,000 stored"),
    "esl_events": ("FreeSWITCH events with translation", "events per CPU second, beside greenswitch"),
    "bus": ("publish with 1,000,000 subscriptions", "publish with 100,000 subscriptions beside 300"),
    "check": ("check a flow file that is shipped",),
}
"""Benchmark → its figures that the README shows."""
BUSY = 1.0
"""Load of the machine at the beginning above which its figures are to be taken with care."""
PEERS = {"kamailio": "Kamailio", "opensips": "OpenSIPS", "greenswitch": "greenswitch", "sippy": "sippy"}


def table(kept: Mapping[str, Any]) -> str:
    """Markdown; a figure that the run does not have is left out."""
    lines = ["| figure | median | least–greatest | `make bench ARGS=…` |", "|---|---|---|---|"]
    for name, wanted in PUBLISHED.items():
        figures = {found["name"]: Figure(**found) for found in kept["benchmarks"].get(name, {}).get("figures", ())}
        lines += [_row(name, figures[title]) for title in wanted if title in figures]
    return "\n".join(lines)


def _row(bench: str, figure: Figure) -> str:
    name = figure.name.replace("orchestrator: ", "").replace("the same at", "one-step flow with a subscription at")
    unit = "×" if figure.unit == "x" else figure.unit
    return f"| {name} | {shown(figure.value)} {unit} | {figure.spread} | `'--only {bench}'` |"


def made_with(kept: Mapping[str, Any]) -> str:
    """One sentence: the machine and the versions."""
    versions = kept["versions"]
    peers = [f"{shown_as} {versions[name]}" for name, shown_as in PEERS.items() if name in versions]
    build = "plain CPython" if kept["build"] == "plain" else "the compiled build on CPython"
    machine = f"{kept['cores']} virtual cores ({kept['cpu']})"
    busy = "" if max(kept["load"]) < BUSY else " The machine was busy with other work: read the ratios."
    return (
        f"Measured on {kept['began'][:10]} with {build} {kept['python']} on {machine}, beside {', '.join(peers)}.{busy}"
    )


def section(kept: Mapping[str, Any]) -> str:
    """What stands in the README, its marks included."""
    return f"{BEGIN}\n{made_with(kept)}\n\n{table(kept)}\n{END}"


def main() -> int:
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        print(f"README.md has no section between {BEGIN} and {END}", file=sys.stderr)
        return 1
    README.write_text(before + section(json.loads(KEPT.read_text())) + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
