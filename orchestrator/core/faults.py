"""A turn that raised: what it was for is ended, so that nothing waits for a bug of ours for ever.

An exception in a turn is a bug, whatever the peer had sent. It must not cost more than that one input: the request that
was being handled is answered 500, once; a call, a flow's run or a REGISTER that was being served gets its final answer
and is let go of. What the exception was about is found from where it struck: a transaction, the argument of a timer,
whoever waited for a job, the channel of an event. This is no path that is taken often, so it costs the others nothing.

What cannot be found here, the timers find: no transaction is without one (`sip.transaction`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from gc import get_referents
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.location_writes import Ask, StoreWrite
from orchestrator.core.push.by_default import WaitingRequest
from orchestrator.core.push.waking import Sleeper, Waking
from orchestrator.core.registrations import Registration
from orchestrator.core.steps.hold import Hold
from orchestrator.core.steps.relay import RelayAttempt
from orchestrator.events.bus import Subscription
from orchestrator.flow.run.listen import Listener, Wait
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.signals import Ticket
from orchestrator.flow.run.task import Task
from orchestrator.sip.ack_wait import Handshake
from orchestrator.sip.branch import Branch
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.response_context import ResponseContext
from orchestrator.sip.server import ServerTransaction

_DEPTH = 8
"""How far from where the exception struck its subject is looked for: through callbacks, to a branch, to its call."""

Bug = Exception
"""What a turn raised."""
Subject = Call | SocketCall | Registration | Run | ResponseContext | ServerTransaction


@dataclass(frozen=True, slots=True)
class Fault:
    """A turn that raised. `where` names the place, `source` the peer whose input it was, `call_id` its SIP Call-ID, as
    far as they are known."""

    where: str
    error: Bug
    source: str = ""
    call_id: str = ""


class Faults:
    """Ends what a bug has struck, and tells: `told(fault)` is called for each, else it is raised (to the reactor, which
    counts and logs it)."""

    def __init__(self, unaware: Callable[[], Iterable[Call]]) -> None:
        """`unaware()`: calls that are over though their runs do not know."""
        self.count = 0
        self.told: Callable[[Fault], object] | None = None
        self._unaware = unaware

    def struck(self, fault: Fault, *where: Any) -> None:
        """End what is found from `where`, then tell."""
        self.count += 1
        for subject in (*_found(where), *self._unaware()):
            self.end(subject)
        if self.told is None:
            raise fault.error
        self.told(fault)

    def guard(self, where: str, source: str = "", *about: Any) -> Guard:
        """For `with`: an exception inside is a fault, and ends there."""
        return Guard(self, where, source, about)

    def of_timer(self, callback: Callable[[Any], None], argument: Any, error: Exception) -> None:
        """A timer's callback raised."""
        self.struck(Fault(f"timer {getattr(callback, '__qualname__', '')}".strip(), error), callback, argument)

    def end(self, subject: Subject) -> None:
        """Give it its final answer and let go of it; never raises."""
        run = subject if isinstance(subject, Run) else getattr(subject, "run", None)
        served = {subject.request, subject.subject} if isinstance(subject, Run) else {subject}
        for each in served - {None}:
            self._fail(each)
        if run is not None and not run.bounded:
            self._attempt(run.abort)

    def _fail(self, subject: Any) -> None:
        """`fail`, and where that raises as well, the least: an answer."""
        if self._attempt(subject.fail) or not isinstance(subject, Call):
            return
        self._attempt(subject.transaction.fail)
        if subject.back is not None:
            self._attempt(subject.back.server.fail)
        self._attempt(partial(subject.exchange.calls.discard, subject))

    def _attempt(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except Exception:  # the bug that was told already, most likely, or one it caused
            return False
        return True


class Guard:
    """Around the work of one turn; see `Faults.guard`."""

    __slots__ = ("_faults", "_where", "_source", "_about")

    def __init__(self, faults: Faults, where: str, source: str, about: tuple[Any, ...]) -> None:
        self._faults = faults
        self._where = where
        self._source = source
        self._about = about

    def __enter__(self) -> None:
        """Nothing is done before."""

    def __exit__(self, kind: object, bug: BaseException | None, at: object) -> bool:
        if not isinstance(bug, Exception):
            return False
        self._faults.struck(Fault(self._where, bug, self._source), *self._about)
        return True


def _found(where: Iterable[Any]) -> list[Subject]:
    """What an exception at these places is about, each once."""
    found: list[Subject] = []
    for thing in where:
        for subject in _subjects(thing, _DEPTH):
            if subject not in found:
                found.append(subject)
    return found


_LEADS_TO: dict[type, str] = {
    ClientTransaction: "user", Branch: "context", RelayAttempt: "call", Hold: "call", Handshake: "party",
    Sleeper: "waking", Waking: "waiter", WaitingRequest: "context",
    Ticket: "task", Task: "run", Listener: "run", Wait: "run", Subscription: "owner", StoreWrite: "ask", Ask: "done",
}  # fmt: skip
"""Type → the attribute that says whose it is."""


def _subjects(thing: Any, depth: int) -> Iterator[Subject]:
    if depth == 0 or thing is None:
        return
    if isinstance(thing, ServerTransaction):
        yield thing.user if isinstance(thing.user, Call | ResponseContext | Registration) else thing
    elif isinstance(thing, ResponseContext):
        yield thing.listener if isinstance(thing.listener, Call) else thing
    elif isinstance(thing, Call | SocketCall | Registration | Run):
        yield thing
    else:
        for nearer in _nearer(thing):
            yield from _subjects(nearer, depth - 1)


def _nearer(thing: Any) -> Iterable[Any]:
    """One step from something towards what it belongs to: through callbacks, too."""
    for kind, name in _LEADS_TO.items():
        if isinstance(thing, kind):
            return (getattr(thing, name),)
    if isinstance(thing, MethodType | BuiltinMethodType):  # the latter is one of a compiled class
        return (thing.__self__,)
    if isinstance(thing, partial):
        return (thing.func, *thing.args)
    if isinstance(thing, FunctionType):
        return tuple(_contents(thing))
    if isinstance(thing, tuple):
        return thing
    if (names := getattr(thing, "__mypyc_env__", None)) is not None:  # a compiled function inside another
        return get_referents(names)
    named = (getattr(thing, name, None) for name in ("ticket", "call", "_call", "_done"))
    return tuple(value for value in named if value is not None and not isinstance(value, str | bytes))


def _contents(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            continue
