"""`media` and `answer`: the caller's leg on FreeSWITCH, parked, and the flow is its dialplan (FLOWLANG §4.3).

The INVITE goes to FreeSWITCH as it would go to a phone, with two headers: our call's id, and `X-Orchestrator-Media`,
which makes the dialplan park the call instead of sending it back, answered (200) or with early media (183). The leg is
ready for commands when both wires have said so: SIP, that it is up, and the Event Socket, that the channel is there.
Either may be first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.core.calls.call import Call
from orchestrator.core.switches.acceptance import Acceptance
from orchestrator.core.switches.executions import channel_of, command
from orchestrator.errors import EslInjection, StepError
from orchestrator.esl.commands import originate_variables, safe_uuid
from orchestrator.sip.branch import Branch
from orchestrator.sip.claims import MEDIA_HEADER
from orchestrator.sip.target import Target
from orchestrator.timers import Timer

READY_WITHIN = 10.0
"""Seconds FreeSWITCH may take to answer and to report the channel."""
PARKED = b"park"
"""The user the INVITE is addressed to: never one a caller has dialled."""

Done = Callable[[StepError | None], None]


class Hold:
    """The branch to FreeSWITCH that holds the caller; `attempt` of that branch, so it hears what becomes of it.

    `done` of `begin` and `answer` is called once, with None or with the error. While it waits for nothing it is silent.
    """

    __slots__ = ("call", "server", "target", "up", "_wanted", "_done", "_timer")

    def __init__(self, call: Call, server: str, sip_uri: str) -> None:
        self.call = call
        self.server = server
        host = sip_uri.split(":", 1)[1].rpartition("@")[2]
        self.target = Target(b"sip:%b@%b" % (PARKED, host.encode()))
        self.up = False
        """FreeSWITCH has sent a 183 or 200: there is media."""
        self._wanted = ""
        self._done: Done | None = None
        self._timer: Timer | None = None

    # --- what flows ask -----------------------------------------------------------------------------------------------

    def begin(self, answer: bool, done: Done) -> None:
        """Send the call to FreeSWITCH."""
        kind = b"answer" if answer else b"early"
        call = self.call
        self.target.headers = (*call.node.network.ties(call.id, call.sip_call_id), MEDIA_HEADER + b": " + kind)
        self._wait("answered" if answer else "up", done)
        self.call.forget_failures()
        if self.call.front.add(self.target, self) is None:
            self._end(StepError("call.state", "media: the call can have no further branch"))

    def answer(self, headers: Sequence[tuple[str, str]], done: Done) -> None:
        """Have FreeSWITCH answer a call that it holds; `headers` go into the 200 (`sip_rh_` variables)."""
        channel = channel_of(self.call, "caller")
        if channel is None:
            done(StepError("call.state", "answer: FreeSWITCH has lost the call"))
            return
        self._wait("answered", done)
        uuid = channel.uuid
        commands = [f"uuid_setvar {uuid} sip_rh_{name} {value}" for name, value in headers]
        self._command([*commands, f"uuid_answer {uuid}"])

    def _command(self, commands: Sequence[str]) -> None:
        """One after the other; the first that fails ends it."""

        def told(result: Any) -> None:
            if isinstance(result, StepError):
                self._end(result)
            elif not result["ok"]:
                self._end(StepError("esl.command", f"answer: {result['text'].strip()}"))
            elif len(commands) > 1:
                self._command(commands[1:])

        self.call.node.job(command(self.server, commands[0]), told)

    def undo(self) -> None:
        """The step was cut off. A leg that is not up yet is not wanted any more."""
        self._done = None
        self._stop_timer()
        if not self.up:
            self._release()

    # --- what becomes of the branch -----------------------------------------------------------------------------------

    def sent(self, branch: Branch) -> None:
        """The INVITE is on its way."""

    def is_news(self, branch: Branch) -> bool:
        """FreeSWITCH is no destination."""
        return False

    def rang(self, branch: Branch, status: int) -> None:
        """FreeSWITCH has media, perhaps."""
        self.progressed(status)

    def failed(self, branch: Branch) -> None:
        """FreeSWITCH refused the call, or ended it before it was answered."""
        if not branch.cancelled:
            self._acceptance.failed(self.server, branch.status, branch.response)
        self.call.lose_hold()
        kind = "esl.down" if branch.response is None else "esl.command"
        self._end(StepError(kind, f"media: FreeSWITCH {self.server}: {branch.status} {branch.reason}"))

    def progressed(self, status: int) -> None:
        """A provisional or final answer of FreeSWITCH has passed."""
        if status >= 183 and not self.up:
            self.up = True
            self._acceptance.took(self.server)
        self.look()

    def look(self) -> None:
        """Something has changed, on SIP or in the channel table: see whether it is what was waited for."""
        call = self.call
        if self._done is None or (self._wanted == "answered" and call.answered_at is None) or not self.up:
            return
        if channel_of(call, "caller") is not None:
            self._end(None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _wait(self, wanted: str, done: Done) -> None:
        self._wanted, self._done = wanted, done
        self._timer = self.call.node.timers.after(READY_WITHIN, Hold._too_late, self)

    def _too_late(self) -> None:
        what = "its Event Socket has not reported the channel" if self.up else "it has not answered"
        if not self.up:
            branch = self.call.front.find(self.target)
            if branch is not None and branch.state == "trying":
                self._acceptance.silent(self.server, f"no response to a call in {READY_WITHIN:g} s")
            self._release()
        self._end(StepError("esl.timeout", f"media: FreeSWITCH {self.server}: {what} within {READY_WITHIN:g} s"))

    @property
    def _acceptance(self) -> Acceptance:
        return self.call.exchange.servers.acceptance

    def _release(self) -> None:
        """Take the INVITE back."""
        self.call.lose_hold()
        branch = self.call.front.find(self.target)
        if branch is not None:
            branch.cancel()

    def _end(self, error: StepError | None) -> None:
        self._stop_timer()
        done, self._done = self._done, None
        if done is not None:
            done(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def answer_headers(headers: Mapping[str, Any], uuid: str) -> list[tuple[str, str]]:
    """Header fields for `uuid_setvar`: names and values that no parser of FreeSWITCH reads anything into.

    Raises StepError.
    """
    try:
        safe_uuid(uuid)
        originate_variables({f"sip_rh_{name}": str(value) for name, value in headers.items()})
    except EslInjection as error:
        raise StepError("esl.command", f"answer: {error}") from None
    return [(name, str(value)) for name, value in headers.items()]
