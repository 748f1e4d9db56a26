"""States of a call, each with what is known of the conditions on the way to it.

`if: x` twice in a flow asks the same thing twice: a way that took the first one takes the second one too. A state keeps
the answers as facts, (condition, held), as long as nothing can have changed them. Facts only rule ways out: where one
is forgotten, more ways are walked than there are, and nothing is claimed that was not claimed before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from orchestrator.flow.language.program import Block, Step

Fact = tuple[str, bool]
"""A condition as `normal` writes it, and whether it held."""


class State(NamedTuple):
    """`call` is new, answered, closed or unknown (call_state)."""

    call: str
    facts: frozenset[Fact] = frozenset()


States = frozenset[State]

NEW, CLOSED, UNKNOWN = (frozenset({State(call)}) for call in ("new", "closed", "unknown"))
NEVER: States = frozenset()

MOST = 64
"""States kept apart at one step; beyond it their facts are forgotten."""

_NEGATED = re.compile(r"not (\w+(?:\.\w+)*(?:\([^()]*\))?|\([^()]*\))")
_UNEQUAL = re.compile(r"([^=!<>]+) != ([^=!<>]+)")
_JOINED = re.compile(r"\b(?:and|or)\b|\?|=~")
_WORD = re.compile(r"\w+")
_LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"")
_FLEETING = re.compile(r"\bcall\.(?:state|answered|ended_by|end_reason|duration|branches|fs|user)\b|\bnow\b")
"""What may differ from one step to the next although no step sets it."""


def calls(states: States) -> frozenset[str]:
    """The states of the call alone."""
    return frozenset(state.call for state in states)


def become(states: States, call: str) -> States:
    """The call is in this state now; what is known stays known."""
    return frozenset(State(call, state.facts) for state in states)


def only(states: States, wanted: Collection[str]) -> States:
    return frozenset(state for state in states if state.call in wanted)


def _bounded(states: States) -> States:
    return states if len(states) <= MOST else without_facts(states)


def without_facts(states: States) -> States:
    return frozenset(State(state.call) for state in states)


def with_facts(states: States, facts: frozenset[Fact]) -> States:
    return frozenset(State(state.call, facts) for state in states)


def by_facts(states: States) -> dict[frozenset[Fact], States]:
    """The states that are known to be on the same way."""
    found: dict[frozenset[Fact], States] = {}
    for state in states:
        found[state.facts] = found.get(state.facts, NEVER) | {state}
    return found


def forget(states: States, names: Collection[str]) -> States:
    """These names have other values now."""
    if not names or not any(state.facts for state in states):
        return states
    return frozenset(State(s.call, frozenset(f for f in s.facts if not _mentions(f[0], names))) for s in states)


def _mentions(condition: str, names: Collection[str]) -> bool:
    return any(word in names for word in _WORD.findall(_LITERAL.sub("", condition)))


def normal(source: str) -> Fact:
    """A condition and the answer that means it holds: `not x` is x that does not, `a != b` is no `a == b`."""
    text = " ".join(source.split())
    if _JOINED.search(_LITERAL.sub("", text)):
        return text, True
    negated = _NEGATED.fullmatch(text)
    if negated is not None:
        condition, held = normal(negated[1].removeprefix("(").removesuffix(")") if negated[1][0] == "(" else negated[1])
        return condition, not held
    unequal = _UNEQUAL.fullmatch(text)
    return (f"{unequal[1]} == {unequal[2]}", False) if unequal is not None else (text, True)


def part(states: States, source: str, asked: Collection[str]) -> tuple[States, States]:
    """States in which a condition may hold, and in which it may not; each knows it from now on if it is in `asked`."""
    condition, held = normal(source)
    if condition not in asked:
        return states, states
    return _knowing(states, condition, held), _knowing(states, condition, not held)


def _knowing(states: States, condition: str, held: bool) -> States:
    """The states that do not know the opposite."""
    known, opposite = (condition, held), (condition, not held)
    return _bounded(frozenset(State(s.call, s.facts | {known}) for s in states if opposite not in s.facts))


def asked_again(*blocks: Block) -> frozenset[str]:
    """The conditions that stand more than once in these steps, as `normal` writes them: only they are worth a fact.

    Those that may change between two steps are left out: what handlers set, and the state of the call.
    """
    counted: Counter[str] = Counter()
    changing: set[str] = set()
    for step in steps_in(blocks):
        counted.update(normal(source)[0] for source in _conditions(step))
        if step.action is not None and step.action.name == "subscribe":
            for inner in steps_in(_blocks(step.args.values())):
                changing |= names_set(inner)
    return frozenset(
        condition
        for condition, times in counted.items()
        if condition
        and times > 1
        and not _FLEETING.search(_LITERAL.sub("", condition))
        and not _mentions(condition, changing)
    )


def names_set(step: Step) -> set[str]:
    """The names that have another value after this step."""
    names = {step.result} if step.result else set()
    if step.action is not None and step.action.name == "set":
        names.update(step.args.get("values", {}))
    return names


def _conditions(step: Step) -> Iterator[str]:
    if step.condition is not None:
        yield getattr(step.condition, "source", "")
    value = getattr(step.args.get("value"), "source", "")
    yield from (f"{value} == '{case}'" for case in step.args.get("cases", ()))


def steps_in(blocks: Iterable[Block]) -> Iterator[Step]:
    """Every step of these lists, and of the lists inside them."""
    for block in blocks:
        for step in block:
            yield step
            yield from steps_in(_blocks((step.on_error or (), *step.args.values())))


def _blocks(values: Iterable[Any]) -> Iterator[Block]:
    """Every list of steps among the values of a step, however deep it lies in them."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _blocks(value.values())
        elif hasattr(value, "do"):
            yield value.do
        elif isinstance(value, tuple) and value and isinstance(value[0], Step):
            yield value
        elif isinstance(value, tuple):
            yield from _blocks(value)
