"""What a test expects of a story, held against what was seen (FLOWLANG §9.1).

Expectations of one stream (SIP, HTTP, pushes, CGRateS, FreeSWITCH commands, effects of packages) have to come true in
the order they are written, with anything in between; between streams there is no order. Texts may hold `*` and `?`,
maps match when they hold at least what is asked for, times within 50 ms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.flow.language.program import Place
from orchestrator.testing.facts import Seen, contains, fields_of
from orchestrator.testing.scenario import Scenario

TOLERANCE = 0.05
"""Seconds."""

STREAMS = {
    "sent": "sip",
    "reply": "sip",
    "register": "sip",
    "http": "http",
    "esl": "esl",
    "effect": "effect",
    "push": "push",
    "cgrates": "cgrates",
}
"""Expectations about facts in order, and the stream each belongs to; those about sinks have one for each type."""

_SHOWN = 12
"""Facts named in a failure."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One entry under `expect:`. `kind` is its key, `wanted` what stands under it; `never` turns it round."""

    kind: str
    wanted: Mapping[str, Any]
    place: Place
    never: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def judge(story: Scenario, expectations: Sequence[Expectation], allow: Sequence[str] = ()) -> list[Failure]:
    """What did not come true, in order of writing; what was left behind and not allowed comes last."""
    failures: list[Failure] = []
    reached: Counter[str] = Counter()
    for expectation in expectations:
        if expectation.kind not in _KINDS:
            message = _of_stream(_facts_of(story, expectation), expectation, reached)
        else:
            message = _KINDS[expectation.kind](story, expectation.wanted)
            if expectation.never:
                message = None if message else f"{expectation.kind} {_shown(expectation.wanted)} should never be"
        if message:
            failures.append(Failure(expectation.place, message))
    return failures + _left_behind(story, expectations, allow)


def _facts_of(story: Scenario, expectation: Expectation) -> Sequence[Seen]:
    """The facts that an expectation may be about: all, or those of one call; the others become nobody's."""
    call = story.named.get(str(expectation.wanted.get("call", "")))
    if call is None:
        return story.facts if "call" not in expectation.wanted else ()
    nobody = Seen(-1.0, "sip", "", "", "")
    return [
        fact if fact.stream not in ("sip", "push") or story.is_of(fact.call, call) else nobody for fact in story.facts
    ]


def _of_stream(facts: Sequence[Seen], expectation: Expectation, reached: Counter[str]) -> str | None:
    """`reached`: stream → how many of its facts stand before what is expected next."""
    stream = STREAMS.get(expectation.kind) or f"sink {expectation.kind}"
    those = [fact for fact in facts if fact.stream == stream]
    if expectation.never:
        found = next((fact for fact in those if _fits(fact, expectation)), None)
        return f"this should never be: {found}" if found else None
    for position in range(reached[stream], len(those)):
        if _fits(those[position], expectation):
            reached[stream] = position + 1
            return None
    before = any(_fits(fact, expectation) for fact in those[: reached[stream]])
    hint = " (it came earlier than what is expected before it)" if before else ""
    seen = "\n".join(f"      {fact}" for fact in [fact for fact in those if fact.kind][-_SHOWN:]) or "      nothing"
    return f"expected {expectation.kind} {_shown(expectation.wanted)}{hint}; seen:\n{seen}"


def _fits(fact: Seen, expectation: Expectation) -> bool:
    wanted = expectation.wanted
    if fact.kind != expectation.kind or not _near(fact.time, wanted.get("at")):
        return False
    if not (_like(fact.what, wanted.get("what")) and _about(fact, wanted.get("about"))):
        return False
    if "with" in wanted and not contains(fields_of(fact.data), wanted["with"]):
        return False
    return "json" not in wanted or contains(getattr(fact.data, "json", None), wanted["json"])


def _near(time: float, wanted: float | None) -> bool:
    return wanted is None or abs(time - wanted) <= TOLERANCE


def _about(fact: Seen, wanted: str | None) -> bool:
    """A URI without parameters also fits the one with them; a glob decides by itself."""
    if wanted is None:
        return True
    bare = fact.about.split(";")[0]
    return any(_like(about, wanted) for about in (fact.about, bare, bare.removesuffix(":5060")))


def _like(text: str, wanted: Any) -> bool:
    return wanted is None or fnmatchcase(text, str(wanted))


# --- about the story as a whole ---------------------------------------------------------------------------------------


def _handler(story: Scenario, wanted: Mapping[str, Any]) -> str | None:
    handled, skipped = story.handled(str(wanted["id"]))
    for name, seen in (("runs", handled), ("skipped", skipped)):
        if name in wanted and wanted[name] != seen:
            return f"handler {wanted['id']!r}: expected {name} {wanted[name]}, seen {seen}"
    return None


def _vars(story: Scenario, wanted: Mapping[str, Any]) -> str | None:
    run = story.run_of()
    values = run.vars if run is not None else {}
    for name, value in wanted.items():
        if name not in values:
            return f"the flow has no variable {name!r}; there is: {', '.join(values) or 'none'}"
        if not contains(values[name], value):
            return f"variable {name!r} is {values[name]!r}, expected {value!r}"
    return None


def _ends(story: Scenario, wanted: Mapping[str, Any]) -> str | None:
    call = story.named.get(str(wanted.get("call", "")))
    for call_id, by, reason in story.ended:
        if "call" in wanted and (call is None or not story.is_of(call_id, call)):
            continue
        if _like(by, wanted.get("by")) and _like(reason, wanted.get("reason")):
            return None
    seen = ", ".join(f"by {by or 'nobody'}: {reason}" for _, by, reason in story.ended) or "no call that a flow took"
    return f"expected the end {_shown(wanted)}; seen: {seen}"


def _log(story: Scenario, wanted: Mapping[str, Any]) -> str | None:
    for time, level, text in story.logs:
        if _like(text, wanted.get("text")) and _like(level, wanted.get("level")) and _near(time, wanted.get("at")):
            return None
    seen = ", ".join(repr(text) for _, _, text in story.logs) or "nothing"
    return f"expected log {_shown(wanted)}; logged: {seen}"


_KINDS: Mapping[str, Callable[[Scenario, Mapping[str, Any]], str | None]] = {
    "handler": _handler,
    "vars": _vars,
    "ends": _ends,
    "log": _log,
}

SENT = ("push", "cgrates")
"""What stands under `sent:` besides SIP messages and the types of sinks, and is a stream of its own."""
KINDS = (*(kind for kind in STREAMS if kind not in SENT), *_KINDS)
"""What may stand under `expect:`."""


def _left_behind(story: Scenario, expectations: Sequence[Expectation], allow: Sequence[str]) -> list[Failure]:
    place = expectations[-1].place if expectations else Place("", 0, 0)
    found = []
    for run in story.runs:
        if run.error and not _allowed(run.error, allow):
            failures = (line.text for line in reversed(run.records) if getattr(line.fact, "type", "") == run.error)
            error = next(failures, run.error)
            found.append(Failure(place, f"flow {run.flow.name!r} {error}; write allow: [{run.error}] if it may"))
    if story.outside.http and story.outside.unanswered:
        help = "add a rule under given: http, or one with  error: connect  if that is meant"
        found += [Failure(place, f"no http: rule fits {asked}; {help}") for asked in story.outside.unanswered]
    help = "add a rule under given: effects, with the result it is to have or  error:  and its type"
    found += [Failure(place, f"no effects: rule fits {asked}; {help}") for asked in story.outside.unperformed]
    if not _allowed("leak", allow):
        found += [Failure(place, f"after the last call has ended: {what}") for what in story.leftovers()]
    return found


def _allowed(what: str, allow: Iterable[str]) -> bool:
    return any(fnmatchcase(what, pattern) for pattern in allow)


def _shown(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in wanted.items() if value is not None)
