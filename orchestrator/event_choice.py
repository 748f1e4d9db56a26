"""Which events a sink gets: names and globs, a condition, and the attributes it is sent, held against the events there
are.

What is wrong with `sinks:` of a configuration often shows only when the flows are known, for they declare events; the
places in the file come with the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from orchestrator.errors import Diagnostic, StepError
from orchestrator.events.choice import matching
from orchestrator.events.event import EventSpec
from orchestrator.flow.expr import BOOL, ExprError, Expression, Scope, compile_expression
from orchestrator.flow.language.context import event_type
from orchestrator.flow.language.suggest import meant
from orchestrator.packages.sink import CDR, ChosenSink, SinkSettings

Events = Mapping[str, EventSpec]


def chosen_events(patterns: Iterable[str], events: Events) -> list[EventSpec]:
    """The specs that names and globs stand for, each once; `cdr` is one of them where it is written out."""
    found: dict[str, EventSpec] = {}
    for pattern in patterns:
        if pattern == CDR.name:
            found[pattern] = CDR
        found |= {name: events[name] for name in matching(pattern, events)}
    return list(found.values())


def condition_for(text: str, spec: EventSpec) -> Expression:
    """`when:` of a sink, for events of this kind. Raises ExprError."""
    return compile_expression(text, Scope({"event": event_type(spec)}), BOOL)


def sink_mistakes(sinks: Mapping[str, ChosenSink], events: Events) -> Iterator[Diagnostic]:
    """What cannot be with these events."""
    for sink in sinks.values():
        yield from _unknown(sink, events)
        specs = chosen_events(sink.common.events, events)
        if sink.common.when is not None:
            yield from _wrong_condition(sink, specs)
        known = {name for spec in specs for name in spec.attributes}
        for position, name in enumerate(sink.common.fields):
            if specs and name not in known:
                message = f"none of these events has an attribute {name!r}"
                yield _at(sink, "fields", position, "E106", message, meant(name, sorted(known)))


def _unknown(sink: ChosenSink, events: Events) -> Iterator[Diagnostic]:
    for position, pattern in enumerate(sink.common.events):
        if not chosen_events([pattern], events):
            is_glob = "*" in pattern or "?" in pattern
            message = f"no event fits {pattern!r}" if is_glob else f"there is no event {pattern!r}"
            yield _at(sink, "events", position, "E112", message, meant(pattern, [*events, CDR.name]))


def _wrong_condition(sink: ChosenSink, specs: Iterable[EventSpec]) -> Iterator[Diagnostic]:
    for spec in specs:
        try:
            condition_for(sink.common.when or "", spec)
        except ExprError as error:
            file, line, column = sink.places["when"]
            message = f"{error.message} (event {spec.name!r})"
            help = error.help or "give the events that lack it a sink of their own"
            yield Diagnostic(file, line, column + error.offset, error.code, message, help=help)
            return


def _at(sink: ChosenSink, key: str, position: int, code: str, message: str, help: str) -> Diagnostic:
    place = sink.places.get(f"{key}.{position}") or sink.places[key]
    return Diagnostic(*place, code, message, help=help)


class Chooser:
    """Whether a sink wants an event, by `when:`. Conditions are compiled when the first event of a kind comes, and anew
    when a reload has changed the kind."""

    def __init__(self, sink: SinkSettings, events: Callable[[], Events]) -> None:
        """`events()` are those known now."""
        self.failed = 0
        """Events whose values the condition could not be worked out for."""
        self._when = sink.when
        self._events = events
        self._conditions: dict[str, tuple[EventSpec, Expression]] = {}

    def wants(self, name: str, attributes: Mapping[str, Any]) -> bool:
        """False, too, where the condition cannot be worked out for the values of this event."""
        if self._when is None:
            return True
        spec = CDR if name == CDR.name else self._events().get(name)
        if spec is None:
            return False
        known = self._conditions.get(name)
        if known is None or known[0] is not spec:
            try:
                known = self._conditions[name] = spec, condition_for(self._when, spec)
            except ExprError:
                return False
        try:
            return bool(known[1].evaluate({"event": attributes}))
        except StepError:
            self.failed += 1
            return False
