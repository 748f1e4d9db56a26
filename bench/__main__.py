"""`make bench`: all benchmarks one after the other, and one table of their figures beside their peers and targets.

    python -m bench [--only NAME …] [--quick] [--json FILE] [--profile [FOLDER]]
    make bench ARGS='--quick --json figures.json'

A figure that has a peer is measured beside it in the same run, in turns; the table gives the median of the rounds and
the least and greatest one. Each benchmark runs in a process of its own, bounded in time, so that none sees what
another left in caches and in the garbage collector's lists, and none can hold up the rest. What is missing on this
machine is named below the table.

`--quick` takes fewer rounds and smaller numbers: to see that all works, not to quote. `--json` keeps everything, with
the machine and the versions of the peers. `--profile` has py-spy watch the servers (or the benchmark itself where it
has none) and writes a flame graph for each; the figures of such a run count for little.

The exit status is 0 when no target was missed and nothing failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bench.children import ends_with_us
from bench.figures import Absent, Figure, Skipped, render
from bench.machine import about
from bench.servers import PROFILE, py_spy, watch
from orchestrator import BUILD


@dataclass(frozen=True, slots=True)
class Bench:
    """What the runner knows of one benchmark, the module `bench.<name>`: `figures()` yields what it measures, `QUICK`
    are its arguments for a quick run, where it has any."""

    seconds: int = 240
    """It may take: some times what it does on a quiet machine, which is what a busy one takes."""
    server: bool = True
    """Whether it starts servers, which are profiled, or is profiled itself."""


_KNOWN: Mapping[str, Bench] = {
    "relay": Bench(300),
    "one_step": Bench(400),
    "capacity": Bench(400),
    "wakeup": Bench(500),
    "wake": Bench(240),
    "media": Bench(240),
    "registrar": Bench(300),
    "parked_calls": Bench(500),
    "esl_events": Bench(200, server=False),
    "reactor": Bench(150, server=False),
    "bus": Bench(150, server=False),
    "parked_flows": Bench(150, server=False),
    "parse": Bench(60, server=False),
    "expr": Bench(60, server=False),
    "check": Bench(300, server=False),
    "pushes": Bench(150, server=False),
    "firebase": Bench(90, server=False),
    "events_out": Bench(180, server=False),
    "homer": Bench(400),
    "charged": Bench(400),
    "sinks": Bench(800),
    "console": Bench(300),
    "connections": Bench(240),
}


def _found() -> dict[str, Bench]:
    """All modules of this folder with a function `figures`, those known above first."""
    folder = Path(__file__).parent
    here = sorted(path.stem for path in folder.glob("*.py") if "\ndef figures(" in path.read_text())
    return {name: _KNOWN.get(name, Bench()) for name in [*_KNOWN, *here] if name in here}


BENCHES: Mapping[str, Bench] = _found()

ENDS_WITHIN = 15.0
"""Seconds a benchmark has to end its servers when it is stopped."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one benchmark handed in: figures, what it lacked, or why there are none."""

    figures: Sequence[Figure | Absent] = ()
    skipped: str = ""
    failed: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return not self.failed and all(figure.met for figure in self.figures if isinstance(figure, Figure))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "figures": [asdict(figure) for figure in self.figures if isinstance(figure, Figure)],
            "missing": [str(figure) for figure in self.figures if isinstance(figure, Absent)],
            "skipped": self.skipped,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
        }


@dataclass(slots=True)
class Report:
    """The outcomes so far, by name."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __str__(self) -> str:
        table = render((name, outcome.figures) for name, outcome in self.outcomes.items())
        skipped = [f"missing: {name}: {o.skipped}" for name, o in self.outcomes.items() if o.skipped]
        failed = [f"FAILED: {name}: {o.failed}" for name, o in self.outcomes.items() if o.failed]
        return "\n".join([f"build: {BUILD}", table, *skipped, *failed])


def measure(name: str, into: Path, quick: bool) -> None:
    """Run one benchmark in this process, a line of `into` for each figure; what it prints goes to stderr."""
    module = importlib.import_module(f"bench.{name}")
    with redirect_stdout(sys.stderr), into.open("w", buffering=1) as file:
        try:
            for figure in module.figures(**(getattr(module, "QUICK", {}) if quick else {})):
                file.write(json.dumps(asdict(figure)) + "\n")
        except Skipped as reason:
            file.write(json.dumps({"skipped": str(reason)}) + "\n")


def read(into: Path) -> Outcome:
    """What `measure` has written."""
    found = [json.loads(line) for line in into.read_text().splitlines()] if into.exists() else []
    skipped = "".join(one["skipped"] for one in found if "skipped" in one)
    return Outcome(
        [Absent(**one) if "cure" in one else Figure(**one) for one in found if "skipped" not in one], skipped
    )


def run(name: str, quick: bool = False, profiles: Path | None = None) -> Outcome:
    """Run one benchmark in a process of its own, within its time. What it has measured before it fails is kept."""
    bench = BENCHES[name]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "figures"
        command = [sys.executable, "-m", "bench", "--measure", name, "--into", str(into)] + ["--quick"] * quick
        environment = dict(os.environ)
        if profiles is not None and bench.server:
            environment[PROFILE] = str(profiles / name)
        child = subprocess.Popen(command, stdout=sys.stderr, env=environment, preexec_fn=ends_with_us())
        profiler = None if bench.server or profiles is None else watch(child.pid, str(profiles / name))
        failed = ""
        try:
            if child.wait(bench.seconds) != 0:
                failed = f"ended with status {child.returncode}, see above"
        except subprocess.TimeoutExpired:
            failed = f"took longer than {bench.seconds} s"
        finally:
            end(child)
            if profiler is not None:  # it ends with what it watches
                profiler.wait(60)
        found = read(into)
        return Outcome(found.figures, found.skipped, failed, time.monotonic() - begun)


def end(child: subprocess.Popen[bytes]) -> None:
    """Stop a benchmark that still runs: first so that it can end what it has started."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds the stack, and every `with` on it ends its server."""
    raise SystemExit(128 + number)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the same as --only")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these only: " + ", ".join(BENCHES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller numbers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    parser.add_argument(
        "--profile", nargs="?", type=Path, const=Path("build/profiles"), metavar="FOLDER", help="flame graphs there"
    )
    parser.add_argument("--measure", choices=BENCHES, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.names += options.only
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(BENCHES)}")
    if options.profile is not None and py_spy() is None:
        parser.error("--profile needs py-spy: pip install py-spy")
    return options


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, stop)
    if options.measure:
        measure(options.measure, options.into, options.quick)
        return 0
    if options.profile is not None:
        options.profile.mkdir(parents=True, exist_ok=True)
    report = Report()
    machine = about()
    begun = time.monotonic()
    for name in options.names or BENCHES:
        print(f"{name} …", file=sys.stderr, flush=True)
        report.outcomes[name] = run(name, options.quick, options.profile)
        if options.json is not None:  # after each: what was measured is not lost with the rest
            found = {name: outcome.plain() for name, outcome in report.outcomes.items()}
            options.json.write_text(
                json.dumps({**machine, "quick": options.quick, "benchmarks": found}, indent=1) + "\n"
            )
    print(report)
    print(f"{time.monotonic() - begun:.0f} s")
    return 0 if all(outcome.good for outcome in report.outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
