"""`python -m bench`: all benchmarks one after the other, and one table of their figures beside the targets.

    python -m bench [NAME …]        names: relay wakeup wake esl_events reactor bus parked_flows parse expr check pushes
        firebase

Each benchmark runs in a process of its own, bounded in time, so that none sees what another left in caches and in
the garbage collector's lists, and none can hold up the rest. One that needs what is not installed is skipped, and
says so. The exit status is 0 when no target was missed and nothing failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

from bench.figures import Figure, Skipped, render
from orchestrator import BUILD

SECONDS: Mapping[str, int] = {
    "relay": 180,
    "wakeup": 80,
    "wake": 80,
    "esl_events": 45,
    "reactor": 40,
    "bus": 20,
    "parked_flows": 30,
    "parse": 15,
    "expr": 15,
    "pushes": 120,
    "check": 30,
    "firebase": 60,
}
"""Benchmark → seconds it may take: about twice what it does on a quiet machine."""

ENDS_WITHIN = 15.0
"""Seconds a benchmark has to end its servers when it is stopped."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one benchmark handed in: figures, or why there are none."""

    figures: Sequence[Figure] = ()
    skipped: str = ""
    failed: str = ""

    @property
    def good(self) -> bool:
        return not self.failed and all(figure.met for figure in self.figures)


@dataclass(slots=True)
class Report:
    """The outcomes so far, by name."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __str__(self) -> str:
        table = render((name, outcome.figures) for name, outcome in self.outcomes.items() if outcome.figures)
        skipped = [f"skipped: {name}: {o.skipped}" for name, o in self.outcomes.items() if o.skipped]
        failed = [f"FAILED: {name}: {o.failed}" for name, o in self.outcomes.items() if o.failed]
        return "\n".join([f"build: {BUILD}", table, *skipped, *failed])


def measure(name: str) -> dict[str, Any]:
    """Run one benchmark in this process; what it prints goes to stderr."""
    with redirect_stdout(sys.stderr):
        try:
            return {"figures": [asdict(figure) for figure in importlib.import_module(f"bench.{name}").figures()]}
        except Skipped as reason:
            return {"skipped": str(reason)}


def run(name: str) -> Outcome:
    """Run one benchmark in a process of its own, within its time."""
    child = subprocess.Popen([sys.executable, "-m", "bench", "--measure", name], stdout=subprocess.PIPE, text=True)
    try:
        octets, _ = child.communicate(timeout=SECONDS[name])
    except subprocess.TimeoutExpired:
        return Outcome(failed=f"took longer than {SECONDS[name]} s")
    finally:
        end(child)
    if child.returncode != 0:
        return Outcome(failed=f"ended with status {child.returncode}, see above")
    found = json.loads(octets)
    return Outcome([Figure(**figure) for figure in found.get("figures", ())], found.get("skipped", ""))


def end(child: subprocess.Popen[str]) -> None:
    """Stop a benchmark that still runs: first so that it can end what it has started."""
    if child.poll() is None:
        child.terminate()
        try:
            child.communicate(timeout=ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()


def stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds the stack, and every `with` on it ends its server."""
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Run benchmarks; all of them by default.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SECONDS))
    parser.add_argument("--measure", choices=SECONDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    unknown = [name for name in options.names if name not in SECONDS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(SECONDS)}")
    report = Report()
    begun = time.monotonic()
    for name in options.names or SECONDS:
        print(f"{name} …", file=sys.stderr, flush=True)
        report.outcomes[name] = run(name)
    print(report)
    print(f"{time.monotonic() - begun:.0f} s")
    return 0 if all(outcome.good for outcome in report.outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
