"""What a run serves (`Run.subject`), as the steps ask for it: its call, SIP's or the dialplan's, its REGISTER or
another request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.registrations import Registration
from orchestrator.core.steps.other_request import OtherRequest
from orchestrator.core.steps.referred import Referred
from orchestrator.errors import StepError
from orchestrator.flow.run.run import Run

_REQUEST = (Registration, OtherRequest)
_CALL = (Call, SocketCall)


def forget(run: Run) -> None:
    """The run is done: it and what it has served let go of each other."""
    subject, request, run.subject, run.request = run.subject, run.request, None, None
    if isinstance(request, Referred):
        request.finish(bool(run.error))
    if isinstance(request, OtherRequest):
        request.part()
    elif isinstance(request, Registration):
        request.run = None
    if isinstance(subject, Call) and subject.over:
        subject.part()
    elif isinstance(subject, SocketCall) and subject.over:
        subject.run = None


def adopt(run: Run, call: Call) -> None:
    """Give a run the call it has placed: from now on it is a run with a call."""
    call.run = run
    run.call, run.call_id = call, call.id
    run.subject = call


def unaware(runs: Iterable[Run]) -> Iterator[Call]:
    """Calls that are over though their runs were not told: a bug has struck in between."""
    for run in list(runs):
        call = run.subject
        if isinstance(call, Call) and call.over and call.run is not None and not call.run.bounded:
            yield call


def request_of(run: Run) -> Registration | OtherRequest | None:
    """The request of a run that is no call's, None for a run without one."""
    return run.request if isinstance(run.request, _REQUEST) else None


def refer_of(run: Run) -> Referred | None:
    """The REFER of a run `on: refer`."""
    return run.request if isinstance(run.request, Referred) else None


def call_of(run: Run) -> Call:
    """The SIP call of a run, over or not. Raises StepError `call.state`."""
    if isinstance(run.subject, Call):
        return run.subject
    handed = isinstance(run.subject, SocketCall)
    known = "FreeSWITCH has handed over this call: there is no SIP here" if handed else ""
    raise StepError("call.state", known or "this run has no call")


def live_call(run: Run) -> Call:
    """The call of a run. Raises StepError `call.state` when there is none, or it is over."""
    call = call_of(run)
    if call.over:
        raise StepError("call.state", "the call is over")
    return call


def media_call(run: Run) -> Call | SocketCall:
    """The call of a run, whether SIP or FreeSWITCH's dialplan brought it. Raises as `live_call` does."""
    call = run.subject
    if not isinstance(call, SocketCall):
        return live_call(run)
    if call.over:
        raise StepError("call.state", "the call is over")
    return call


def carried_call(run: Run) -> Call | SocketCall | None:
    """The same, over or not; None for a run without one."""
    return run.subject if isinstance(run.subject, _CALL) else None
