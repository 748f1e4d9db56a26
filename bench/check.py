"""What a check of flow files costs: on every save in an editor, at every start and reload.

Run `python -m bench.check [FOLDER …]`, by default with the flows of this repository. Each figure is the least of some
runs, the usual defence against a noisy machine. `set` is a made-up set of a thousand flows, to show that the time
grows with the text and not faster.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import yaml

from bench.figures import Figure, middle, ratios
from bench.turns import in_turns
from orchestrator.errors import InputError
from orchestrator.flow.language.yaml import parse
from orchestrator.flow.loader import Source, load_sources, read_sources

RUNS = 10
MOST_GROWTH = 1.5
FLOWS = Path(__file__).parents[1] / "flows"

MADE_UP = """\
  office_{n}:
    on: invite
    when: call.target.user == '{n}' and call.from.host == 'example.com'
    vars: {{tried: 0}}
    do:
      - subscribe: registered
        where: {{aor: '${{call.to.aor}}'}}
        for: 20s
        do: [{{inject: '${{event.uri}}', if: event.mobile}}]
      - relay: {{to: registered, ring: 30s, keep_open: 20s}}
        on:
          answered: [{{log: 'answered by ${{relay.contact ?? "?"}}'}}, stop]
          else: [{{set: {{tried: '${{vars.tried + 1}}'}}}}]
      - reply: {{code: 480, reason: Nobody home}}
"""


def least(work: Callable[[], object], runs: int = RUNS) -> float:
    """Milliseconds of the fastest run."""
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best * 1000


def check_each(sources: Sequence[Source]) -> None:
    for source in sources:
        try:
            load_sources([source])
        except InputError as error:
            sys.exit(str(error))


def made_up(count: int) -> Source:
    """A set of so many flows in one text."""
    return Source("made_up", "flowlang: 1\nflows:\n" + "".join(MADE_UP.format(n=n) for n in range(count)))


def check_set(count: int) -> tuple[int, float]:
    """Lines of a made-up set and the milliseconds its check takes."""
    source = made_up(count)
    return source.text.count("\n"), least(partial(load_sources, [source]), 2)


def figures(rounds: int = 5) -> Iterator[Figure]:
    """The flows of this repository, beside PyYAML alone, and whether the time grows with the text and not faster."""
    sources = read_sources([FLOWS])
    few, many = made_up(100), made_up(1000)
    found = in_turns(
        {
            "check": lambda: check_each(sources),
            "yaml": lambda: [yaml.load(source.text, yaml.CSafeLoader) for source in sources],
            "few": lambda: load_sources([few]),
            "many": lambda: load_sources([many]),
        },
        {"check": 1, "yaml": 1, "few": 1, "many": 1},
        rounds,
    )
    each = [spent / len(sources) / 1e3 for spent in found["check"]]
    yield middle("check a flow file that is shipped", each, "ms")
    yield middle("the same beside PyYAML's C loader alone", ratios(found["check"], found["yaml"]), "x")
    lines = many.text.count("\n") / few.text.count("\n")
    growth = [ratio / lines for ratio in ratios(found["many"], found["few"])]
    yield middle("check 1,000 flows, per line beside 100", growth, "x", most=MOST_GROWTH)


QUICK = {"rounds": 2}


def main(folders: Sequence[str]) -> None:
    sources = read_sources([Path(folder) for folder in folders] or [FLOWS])
    lines = sum(source.text.count("\n") for source in sources)
    print(f"{len(sources)} files, {lines} lines, each checked by itself")
    print(f"  yaml only       {least(lambda: [parse(source.name, source.text) for source in sources]):8.1f} ms")
    print(f"  whole check     {least(lambda: check_each(sources)):8.1f} ms")
    for count in (100, 1000):
        lines, spent = check_set(count)
        print(f"set of {count:4} flows {lines:6} lines {spent:8.1f} ms  {spent / lines * 1000:5.0f} µs a line")


if __name__ == "__main__":
    main(sys.argv[1:])
