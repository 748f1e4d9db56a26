"""What always holds of an engine between two of its turns, whatever came in and whatever died: nothing is there that
nothing will end.

Call it in any test, after any input:

    assert without_end(world.engine) == []

It looks at every table, so it is for tests; the time it takes grows with what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.calls.call import Call
from orchestrator.core.engine import Engine
from orchestrator.core.steps.relay import RelayAttempt
from orchestrator.flow.run.account import Phase
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import Ticket
from orchestrator.sip.transaction import TERMINATED, Transaction

_REPEATS = frozenset(("timer A", "timer E", "timer G"))
"""Timers that send something again and end nothing."""


def without_end(engine: Engine) -> list[str]:
    """Everything that is held and that neither a timer nor anything awaited will ever end, in words; [] when all is
    well."""
    return [*_transactions(engine), *_calls(engine), *_runs(engine), *_tables(engine)]


def _transactions(engine: Engine) -> Iterator[str]:
    layer = engine.layer
    transactions: list[Transaction] = [*layer.servers.values(), *layer.clients.values()]
    for transaction in transactions:
        if transaction.state == TERMINATED or _REPEATS.issuperset(transaction.armed):
            yield f"{transaction!r} has no timer that ends it"
    open_ones = sum(not server.answered for server in layer.servers.values())
    if open_ones != layer.unanswered:
        yield f"{open_ones} requests are unanswered, {layer.unanswered} are counted"
    for server in layer.servers.values():
        user = server.user
        if server.method == b"INVITE" and not server.answered and (user is None or not user.attended):
            yield f"{server!r}: nobody will answer it, {user!r}"


def _calls(engine: Engine) -> Iterator[str]:
    for call in engine.calls:
        if call.over:
            yield f"{call!r} is over and still listed"
        elif call.replied:
            timer = call.watch_timer
            if timer is None or not timer.armed:
                yield f"{call!r} is answered and nothing bounds it"
        elif not call.attended:
            yield f"{call!r}: nothing goes on that could answer it"
        relay = call.relay
        if isinstance(relay, RelayAttempt):
            step = relay._done
            if isinstance(step, Ticket) and step.task is None:
                yield f"{relay!r}: nobody waits for it"
            elif relay.running and not relay.attended and not relay.awaits_back:
                yield f"{relay!r}: nothing will end it"


def _runs(engine: Engine) -> Iterator[str]:
    for run in engine.flows.runs.values():
        if (problem := _problem(run)) is not None:
            yield f"{run!r}: {problem}"


def _problem(run: Run) -> str | None:
    if run.phase is Phase.DONE:
        return "done and still listed"
    if run.phase is Phase.MAIN and not run.tasks:
        return "its main steps are gone and it has not heard of it"
    if run.phase is Phase.ENDING or run.ended is not None:
        if run.tasks and (run._grace is None or not run._grace.armed):
            return "it ends without a bound"
        return None if run.tasks else "ended and still listed"
    if run.phase is Phase.OPEN:
        call = run.subject
        if run.call is not None and (call is None or (isinstance(call, Call) and call.over)):
            return "its call is over and it has not heard of it"
        if run.call is None and not run.tasks and not run.listeners:
            return "it waits for nothing"
    return None


def _tables(engine: Engine) -> Iterator[str]:
    for handshakes in engine.handshakes._open.values():
        for handshake in handshakes:
            party = handshake.party
            if isinstance(party, Call) and party.over and not handshake.held:
                yield f"{handshake!r}: its call is over"
