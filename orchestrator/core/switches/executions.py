"""An application at work on a channel of FreeSWITCH, and how its name and arguments are written down safely."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from orchestrator.core.node import Node
from orchestrator.errors import EslInjection, StepError
from orchestrator.esl.channels import Channel
from orchestrator.esl.codec import EslEvent, integer
from orchestrator.esl.commands import quote_argument, safe_uuid
from orchestrator.flow.run import effects

BREAKS = 4
"""How often an application is told to end; what has not heard by then cannot be broken (rxfax)."""
BREAK_AGAIN = 0.25
"""Seconds between them: ten times what an application takes to begin."""

NOT_PLAYED = {"FILE NOT FOUND": "there is no such file", "PLAYBACK ERROR": "it cannot be played"}
"""What `playback` answers when nothing was heard (mod_dptools, playback_function)."""

Done = Callable[[Any], None]
"""Told the result of an application, or the StepError it failed with."""


class Application:
    """A dialplan application with its arguments, and the channel variables wanted at its end."""

    __slots__ = ("name", "args", "variables", "timeout")

    def __init__(self, name: str, args: str, variables: Sequence[str] = (), timeout: float | None = None) -> None:
        self.name = name
        self.args = args
        self.variables = variables
        self.timeout = timeout

    def on(self, channel: Channel, wait: bool = True) -> effects.EslExecute:
        return effects.EslExecute(
            self.name, self.args, channel.leg, wait, channel.server, channel.uuid, self.variables, self.timeout
        )


class Execution:
    """One application on one channel, `times` in a row; `done` is told the last result, or the first error."""

    __slots__ = ("_node", "effect", "_left", "_done", "running")

    def __init__(self, node: Node, effect: effects.EslExecute, done: Done, times: int = 1) -> None:
        self._node = node
        self.effect = effect
        self._left = times
        self._done: Done | None = done
        self.running = False

    def start(self) -> None:
        if self._done is None:
            return
        if self._left == 0:  # stopped while it waited for its turn
            self._done({"response": "", "variables": {}})
            return
        self._left -= 1
        self.running = True
        self._node.job(self.effect, self._finished)

    def _finished(self, result: Any) -> None:
        self.running = False
        if self._left and not isinstance(result, StepError):
            self.start()
        elif self._done is not None:
            self._done(result)

    def stop(self) -> None:
        """Break it off. What FreeSWITCH still runs is told to end; `done` hears of that, once."""
        self._left = 0
        self._break(BREAKS)

    def _break(self, tries: int) -> None:
        """FreeSWITCH forgets a break that comes before the application has begun (switch_core_session_exec clears
        CF_BREAK), so it is told again."""
        if self.running and tries:
            self._node.job(command(self.effect.server, f"uuid_break {self.effect.uuid}"), ignore)
            self._node.timers.after(BREAK_AGAIN, self._break, tries - 1)

    def forget(self) -> None:
        """Break it off, and nobody wants to know."""
        self._done = None
        self.stop()


class Recording:
    """A `record_session`: it runs beside everything else, so its end is an event of its own, RECORD_STOP."""

    __slots__ = ("_node", "_channel", "_path", "_done")

    def __init__(self, node: Node, channel: Channel, path: str, done: Done) -> None:
        self._node = node
        self._channel = channel
        self._path = path
        self._done: Done | None = done

    def start(self, effect: effects.EslExecute) -> None:
        self._channel.listen(self)
        self._node.job(effect, self._started)

    def _started(self, result: Any) -> None:
        if isinstance(result, StepError):
            self._end(result)

    def hear(self, event: EslEvent) -> bool:
        """Its own RECORD_STOP comes between the hang-up and the end of the channel."""
        if event.name == "CHANNEL_DESTROY":
            self._end(StepError("esl.command", "the channel has ended"))
        elif event.name == "RECORD_STOP" and event.get("Record-File-Path") == self._path:
            self._end(integer(event.get("variable_record_ms")) / 1000)
        return False

    def undo(self) -> None:
        """Nobody waits for it any more."""
        self._done = None
        self._channel.ignore(self)
        stop = f"uuid_record {self._channel.uuid} stop {self._path}"
        self._node.job(command(self._channel.server, stop), ignore)

    def _end(self, result: Any) -> None:
        self._channel.ignore(self)
        done, self._done = self._done, None
        if done is not None:
            done(result)


class HasChannels(Protocol):
    """A call whose legs FreeSWITCH may have, whichever way it came."""

    def channels(self) -> Iterable[Channel]:
        """Its channels, those of both legs."""


def channel_of(call: HasChannels, leg: str) -> Channel | None:
    """The live FreeSWITCH channel of one side of a call; the newest where a transfer has left an older one."""
    live = [c for c in call.channels() if c.leg == leg and not c.destroyed]
    return live[-1] if live else None


def kill_channels(node: Node, call: HasChannels) -> None:
    """End the channels of a call that is over, where they have outlived it."""
    for channel in list(call.channels()):
        try:
            text = f"uuid_kill {safe_uuid(channel.uuid)}"
        except EslInjection:
            continue  # a stranger's Call-ID: FreeSWITCH does what it can
        if not channel.destroyed:
            node.count("esl.channel.outlived")
            node.job(command(channel.server, text), ignore)


def command(server: str, text: str) -> effects.EslCommand:
    return effects.EslCommand("api", text, server)


def terminators(channel: Channel, keys: str) -> effects.EslCommand:
    """The keys that end a playback or recording on a channel from now on."""
    return command(channel.server, f"uuid_setvar {channel.uuid} playback_terminators {keys}")


def tone_of(channel: Channel) -> str:
    """The tone a fax on this leg would send: a calling one CNG, a called one CED (ITU-T T.30)."""
    return "ced" if channel.leg == "callee" else "cng"


def plain(text: str, action: str) -> str:
    """`text` when FreeSWITCH reads nothing into it. Raises StepError for `${`, which it expands, and for line ends."""
    if "${" in text or any(mark in text for mark in "\r\n\0"):
        raise StepError("esl.command", f"{action}: {text[:80]!r} may not be put into a FreeSWITCH command")
    return text


def argument(text: str, action: str) -> str:
    """`text` as one of several arguments. Raises StepError."""
    try:
        return quote_argument(text)
    except EslInjection as error:
        raise StepError("esl.command", f"{action}: {error}") from None


def whole(seconds: float) -> int:
    return math.ceil(seconds)


def ignore(result: Any) -> None:
    """For commands whose outcome changes nothing."""
