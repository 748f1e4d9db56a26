"""The commands that a FreeSWITCH is given, over a link or over a connection of its dialplan: the same four for both.

A reply says that a command was taken. What a job (bgapi) or an application has come to is told by an event, which names
it by an id that we have chosen. So who waits is noted down before the command goes out: the event may overtake the
reply, and on a link it comes on another connection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import gevent
from gevent.event import AsyncResult, Event

from orchestrator.errors import EslError, EslTimeout
from orchestrator.esl.codec import EslEvent, Frame
from orchestrator.esl.commands import bgapi, encode, sendmsg_execute

REPLY_TIMEOUT = 30.0
"""Most seconds for FreeSWITCH to say that a job or application is queued, however long it may then run."""


class Commands(ABC):
    """Whoever can bring a command to FreeSWITCH (`deliver`) and hears its events (`hear_result`)."""

    result_timeout: float
    """Seconds to wait for a result where a command does not say."""

    def __init__(self) -> None:
        self.busy = 0
        """Commands under way."""
        self.settled = Event()
        """Set whenever one has ended."""
        self._waiting: dict[str, tuple[AsyncResult[EslEvent], str]] = {}

    @abstractmethod
    def deliver(self, wire: bytes, label: str, timeout: float | None) -> Frame:
        """Send a command and give its reply. Raises EslDown, EslTimeout."""

    def api(self, command: str, timeout: float | None = None) -> str:
        """Run an API command at once and return its output. For quick ones: other commands wait behind it.

        Raises EslInjection, EslDown, EslTimeout.
        """
        with self._counted():
            return self.deliver(encode(f"api {command}"), f"api {command}", timeout).text

    def bgapi(self, command: str, timeout: float | None = None) -> str:
        """Run an API command in FreeSWITCH's background and wait for its output. Raises as `api` does."""
        job = str(uuid4())
        return self._result(bgapi(command, job), f"bgapi {command}", job, "", timeout).body

    def execute(self, uuid: str, app: str, args: str = "") -> None:
        """Queue a dialplan application on a channel. Raises as `api` does, and EslError when FreeSWITCH does not know
        the channel."""
        wire = sendmsg_execute(uuid, app, args, event_uuid=str(uuid4()))
        with self._counted():
            self._have_taken(wire, f"sendmsg {uuid} execute {app}", None)

    def run(self, uuid: str, app: str, args: str = "", timeout: float | None = None) -> EslEvent:
        """Run a dialplan application to its end: its CHANNEL_EXECUTE_COMPLETE, which has to be subscribed to.

        Raises as `execute` does, and EslError when the channel ends first.
        """
        token = str(uuid4())
        wire = sendmsg_execute(uuid, app, args, event_uuid=token)
        return self._result(wire, f"sendmsg {uuid} execute {app}", token, uuid, timeout)

    # --- for who inherits ---------------------------------------------------------------------------------------------

    def hear_result(self, event: EslEvent) -> None:
        """An event that may be the result of a command."""
        key = event.get("Job-UUID" if event.name == "BACKGROUND_JOB" else "Application-UUID")
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting[0].set(event)

    def fail_waiting(self, error: EslError, uuid: str = "") -> None:
        """No results any more: of that channel, or at all."""
        for waiter, channel in list(self._waiting.values()):
            if not uuid or channel == uuid:
                waiter.set_exception(error)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _have_taken(self, wire: bytes, label: str, timeout: float | None) -> None:
        frame = self.deliver(wire, label, timeout)
        if not frame.ok:
            raise EslError(frame.text.strip(), label)

    def _result(self, wire: bytes, label: str, key: str, uuid: str, timeout: float | None) -> EslEvent:
        """The event that carries `key`, after the command has been taken; `uuid`: the channel it is about."""
        seconds = self.result_timeout if timeout is None else timeout
        waiter: AsyncResult[EslEvent] = AsyncResult()
        self._waiting[key] = (waiter, uuid)
        try:
            with self._counted(), gevent.Timeout(seconds, EslTimeout(f"no result within {seconds:g} s", label)):
                self._have_taken(wire, label, min(seconds, REPLY_TIMEOUT))
                event = waiter.get()
                assert event is not None
                return event
        except EslError as error:
            error.command = label
            raise
        finally:
            del self._waiting[key]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self.settled.set()
