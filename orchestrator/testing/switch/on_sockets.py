"""A whole FreeSWITCH on loopback: the Event Socket of `testing.freeswitch`, and beside it, on a UDP port, the SIP side
of `testing.switch.server`. A server under test is told of both (`host`, `port`, `password`; `sip`), and flows whose
media go through FreeSWITCH run on real sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Self

import gevent

from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.phone import Address
from orchestrator.testing.sockets import Wire
from orchestrator.testing.switch.commands import COMMANDS
from orchestrator.testing.switch.server import VirtualFreeSwitch


class SocketFreeSwitch(FakeFreeSwitch):
    """The server. Rules of a test (`on`) still win over what its SIP side would do.

    `sip` is the SIP side, on `wire`; its calls go to `sip.proxy`, which has to be set when the server under test has
    an address.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.wire = Wire(self.host)
        self._timers: set[gevent.Greenlet[..., object]] = set()
        nowhere: Address = (self.host, 9)
        self.sip = VirtualFreeSwitch(self.wire.address, nowhere, self.wire.send, self.emit, self._later, monotonic)
        self.wire.take = self.sip.receive
        self.on("sendmsg * execute *").then(self._execute)

    @property
    def sip_uri(self) -> str:
        """Where its SIP side is reached: key `sip` of a server in the configuration."""
        host, port = self.wire.address
        return f"sip:{host}:{port}"

    def settings(self) -> dict[str, Any]:
        """This server as the configuration names it."""
        return {"host": self.host, "port": self.port, "password": self.password, "sip": self.sip_uri}

    def close(self) -> None:
        """End of both sides, for good."""
        self.stop()
        for timer in list(self._timers):
            timer.kill()
        self.wire.close()

    def __enter__(self) -> Self:
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.close()

    # --- commands -----------------------------------------------------------------------------------------------------

    def output(self, command: str) -> str:
        name = command.strip().partition(" ")[0]
        if name in COMMANDS:
            told: list[str] = []
            self.sip.api(command.strip(), told.append)
            return told[0]
        self.channels = [
            {"uuid": uuid, "direction": channel.direction, "callstate": "ACTIVE" if channel.answered else "RINGING"}
            for uuid, channel in self.sip.channels.items()
        ]
        return super().output(command) if name != "originate" else ""

    def job_done(self, job: str, command: str, output: str) -> None:
        """That of an `originate` is done when the call is answered or has failed."""
        if command.startswith("originate "):
            report = super().job_done
            self.sip.api(command, lambda text: report(job, command, text))
        else:
            super().job_done(job, command, output)

    def _execute(self) -> None:
        """The application of the `sendmsg` that was just answered."""
        command = self.commands[-1]
        told = command.headers
        uuid = command.line.partition(" ")[2]
        app, arguments, id = (told.get(name, "") for name in ("execute-app-name", "execute-app-arg", "event-uuid"))
        self.sip.execute(uuid, app, arguments, id, lambda response: None)

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        timer = gevent.spawn_later(seconds, act)
        self._timers.add(timer)
        timer.link(self._timers.discard)
