"""What an expression costs: to compile when flows are loaded, to evaluate while a call waits.

E1 to E3 are the rows of FLOWLANG §3; the others are what flows are made of. `event` is a dict of 37 headers, as an
Event Socket event has. Run: python -m bench.expr
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

from bench.figures import Absent, Figure, middle, ratios
from bench.turns import in_turns
from orchestrator.flow.expr import (
    BOOL,
    DIGITS,
    NUMBER,
    TEXT,
    Scope,
    compile_expression,
    compile_template,
    enum,
    list_of,
    optional,
    record,
    split_filter,
)

_SIDE = record("address", {"user": DIGITS, "host": TEXT, "aor": TEXT})
_EVENT = {"digit": DIGITS, "leg": enum("caller", "callee"), "aor": TEXT, "expires": NUMBER, "user_agent": TEXT}
_HEADERS = {f"header_{number}": TEXT for number in range(32)}

SCOPE = Scope(
    {
        "call": record("call", {"to": _SIDE, "from": _SIDE, "domain": TEXT, "user": optional(TEXT)}),
        "event": record("event", {**_EVENT, **_HEADERS}),
        "vars": record("vars", {"callee": TEXT, "n": NUMBER}),
        "groups": record("groups", {"sales": list_of(DIGITS)}),
    }
)
ALICE = {"user": "alice", "host": "example.com", "aor": "alice@example.com"}
ENV = {
    "call": {"to": ALICE, "from": ALICE, "domain": "example.com", "user": None},
    "event": {
        "digit": "2",
        "leg": "callee",
        "aor": "alice@example.com",
        "expires": 3600,
        "user_agent": "Acme Phone 4.2 (build 77)",
        **{f"header_{number}": str(number) for number in range(32)},
    },
    "vars": {"callee": "alice", "n": 3},
    "groups": {"sales": ["101", "102", "103"]},
}
ROWS = {
    "E1 digits": "event.digit != 2",
    "E2 filter": "event.aor == vars.callee + '@' + call.domain && event.expires > 0",
    "E3 list, pattern": "call.to.user in ['bob', 'alice'] && event.user_agent.matches('^Acme.*[0-9]')"
    " && event.user_agent.contains('Phone') && event.expires < 7200",
    "enum": "event.leg == 'callee'",
    "nullable": "(call.user ?? 'nobody') == 'alice'",
    "arithmetic": "vars.n + 1",
    "glob": "event.aor.like('*@example.com')",
    "macro": "groups.sales.exists(x, x == call.to.user)",
}


def per_call(function: Callable[[], object], rounds: int) -> float:
    """Microseconds per call, best of five."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(rounds):
            function()
        best = min(best, (time.perf_counter() - begun) / rounds)
    return best * 1e6


def row(name: str, compile: Callable[[], object], evaluate: Callable[[], object], rounds: int) -> str:
    return f"{name:<18} {per_call(compile, rounds // 500):>8.0f} µs {per_call(evaluate, rounds):>8.2f} µs"


def figures(count: int = 20_000, rounds: int = 5) -> Iterator[Figure | Absent]:
    """A filter as flows have it: compiled once, evaluated for every event; beside CEL in Rust for Python."""
    text = ROWS["E2 filter"]
    works: dict[str, Callable[[], object]] = {
        "ours": partial(compile_expression(text, SCOPE).evaluate, ENV),
        "compile": partial(compile_expression, text, SCOPE),
    }
    if find_spec("cel") is not None:
        import cel

        works["cel"] = partial(cel.compile(text).execute, cel.Context(variables=ENV))
    else:
        yield Absent("a second CEL to compare with", "pip install common-expression-language")
    found = in_turns(works, {"ours": count, "compile": count // 200, "cel": count // 20}, rounds)
    yield middle("evaluate a filter of two tests", found["ours"], "µs")
    yield middle("compile it", found["compile"], "µs")
    if "cel" in found:
        yield middle("evaluate it, beside common-expression-language", ratios(found["ours"], found["cel"]), "x")


QUICK = {"count": 4_000, "rounds": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50_000)
    rounds = parser.parse_args().rounds
    print(f"{'':<18} {'compile':>11} {'evaluate':>11}")
    for name, text in ROWS.items():
        evaluate = compile_expression(text, SCOPE).evaluate
        print(row(name, partial(compile_expression, text, SCOPE), partial(evaluate, ENV), rounds))
    text = "call from ${call.from.user} to ${call.to.aor}, try ${vars.n}"
    run = compile_template(text, SCOPE, TEXT).evaluate
    print(row("template", partial(compile_template, text, SCOPE, TEXT), partial(run, ENV), rounds))
    mined = split_filter("event.aor == call.to.aor and event.expires > 0", SCOPE)
    key, rest = mined.equals["aor"].evaluate, mined.rest
    assert rest is not None and rest.type == BOOL
    left = rest.evaluate
    print(row("filter, rest of it", partial(split_filter, mined.whole.source, SCOPE), partial(left, ENV), rounds))
    print(row("filter, its key", lambda: None, partial(key, ENV), rounds))


if __name__ == "__main__":
    main()
