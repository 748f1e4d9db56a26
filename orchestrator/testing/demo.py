"""The demonstration: the real server, three phones, a push service and a FreeSWITCH in memory, all on loopback.

Each scenario starts a server with one of the shipped flows, plays its little story with phones, and prints every
message that passes a phone and every step the flow takes, in the order they happen. What should have happened is
checked, so that the demonstration is a test of the installation as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import time

import gevent
from loguru import logger
from rich.console import Console
from rich.text import Text

from orchestrator.app import Server
from orchestrator.flow.run.trace import TraceWritten
from orchestrator.history import CallFact
from orchestrator.packages.push_service import ChosenPush, PushServiceKind
from orchestrator.packages.service import NoSettings
from orchestrator.settings import Settings
from orchestrator.sip.push import Push, Pushed, PushService
from orchestrator.site import read_site
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, Wire, wait_until
from orchestrator.testing.switch.events import template
from orchestrator.testing.switch.on_sockets import SocketFreeSwitch

_WIDTH = 10

SERVICE = "demo"
AWAKE = 0.05
"""The push service of the demonstration, and how long its phones are awake after they have registered, in seconds."""


class Failed(Exception):
    """A scenario did not go as it should."""


class Demo:
    """`run()` plays all scenarios and returns the exit status: 0 when all of them went as they should."""

    def __init__(self, flows: Path, console: Console | None = None) -> None:
        self.flows = flows
        self.console = console or Console(highlight=False)
        self._began = 0.0
        self._lines: list[tuple[float, str, str]] = []

    def run(self) -> int:
        logger.remove()  # the server's log would only repeat what is shown here
        scenarios = (
            ("push_wakeup", "Push wake-up with late forking", push_wakeup),
            ("dtmf_screening", "Fax and voicemail detection by DTMF", dtmf_screening),
            ("call_pickup", "Call pickup", call_pickup),
        )
        status = 0
        for number, (flow, title, play) in enumerate(scenarios, 1):
            path = self.flows / f"{flow}.flow.yaml"
            self.console.print(f"\n[bold]{number}. {title}[/]   {path}")
            try:
                with Stage(self, path) as stage:
                    play(stage)
            except Failed as failure:
                status = 1
                self.flush()
                self.console.print(f"   [bold red]failed:[/] {failure}")
            self.flush()
        self.console.print(
            "\nAll three went as they should." if status == 0 else "\n[bold red]Something went wrong.[/]"
        )
        return status

    # --- what is shown ------------------------------------------------------------------------------------------------

    def start_clock(self) -> None:
        self._began = time()

    def say(self, text: str) -> None:
        """What a person does or sees; everything before it is shown first."""
        self.flush()
        self.console.print(Text(f"   {'':8}{text}", style="bold"))

    def watch(self, name: str, wire: Wire) -> None:
        """Show every datagram of an endpoint, at the time the kernel took it: sockets are read in any order."""

        def message(wire: Wire, data: bytes, sent: bool) -> None:
            line = data.split(b"\r\n", 1)[0].decode("utf-8", "replace")
            what = line.removeprefix("SIP/2.0 ") if line.startswith("SIP/2.0 ") else line.removesuffix(" SIP/2.0")
            at = time() if sent else wire.arrivals[-1][0] / 1e9
            arrow, colour = ("──►", "green") if sent else ("◄──", "cyan")
            self._show(at, f"{name:>{_WIDTH}} {arrow} proxy   {what}", colour)

        wire.on_message = message

    def step(self, written: TraceWritten) -> None:
        """A line of a flow's trace; the phones show its SIP."""
        line = written.line
        if not isinstance(line.fact, CallFact):
            place = f":{line.line}" if line.line else ""
            self._show(time(), f"{'':{_WIDTH}} {written.run.flow.name}{place}  {line.text}", "yellow")

    def event(self, text: str) -> None:
        """Something from outside of SIP."""
        self._show(time(), f"{'':{_WIDTH}} {text}", "magenta")

    def flush(self) -> None:
        """Show what has happened, in the order it happened."""
        lines, self._lines = sorted(self._lines, key=lambda entry: entry[0]), []
        for at, text, style in lines:
            shown = Text(f"   {at - self._began:6.3f}  {text}", style=style)
            self.console.print(shown, overflow="ellipsis", no_wrap=True)

    def _show(self, at: float, text: str, style: str) -> None:
        self._lines.append((at, text, style))


class Stage:
    """One scenario's server, phones, push service and FreeSWITCH."""

    def __init__(self, demo: Demo, flow: Path) -> None:
        self.demo = demo
        self._stack = ExitStack()
        self.on_push: Callable[[], None] = lambda: None
        self.freeswitch = self._stack.enter_context(SocketFreeSwitch())
        kind = PushServiceKind(SERVICE, "That of the demonstration.", lambda _: DemoPush(self))
        push = ChosenPush(kind, PushService(SERVICE, SERVICE), NoSettings(), timeout=5.0, concurrency=1)
        settings = Settings.model_validate(
            {
                "sip": {"listen": ["udp:127.0.0.1:0"], "domains": ["example.com"]},
                "location": "memory:",
                "freeswitch": {"fs1": self.freeswitch.settings()},
                "flows": [str(flow)],
                "push": {"services": {SERVICE: push}, "awake": f"{AWAKE:g}s"},
                "admin": {"listen": "127.0.0.1:0"},
            }
        )
        self.server = Server(read_site(settings, {}), self._stack)
        self.server.engine.history.listen(TraceWritten, demo.step)
        self.server.start()
        self.freeswitch.sip.proxy = self.server.listening.bound[0]
        demo.watch("FreeSWITCH", self.freeswitch.wire)
        self.freeswitch.wait_subscribed("CHANNEL_CREATE")
        demo.start_clock()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def phone(self, user: str, registered: bool = True, parameters: str = "") -> SocketPhone:
        phone = SocketPhone(f"{user}@example.com", self.server.listening.bound[0], parameters=parameters)
        self._stack.callback(phone.close)
        self.demo.watch(user, phone.wire)
        if registered:
            phone.register()
            expect(lambda: phone.registered == [200], f"{user} is registered")
        return phone


class DemoPush:
    """A push service that is told in this process; see `packages.push_service.PushSender`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def check(self) -> Sequence[str]:
        return ()

    def start(self) -> None: ...

    def server_of(self, push: Push) -> str:
        return ""

    def send(self, push: Push) -> Pushed:
        self._stage.demo.event(f"push service ◄── {push.kind} for {push.aor}, from {push.data['from']}")
        self._stage.on_push()
        return Pushed("sent", id="1")

    def stop(self) -> None: ...


def expect(condition: Callable[[], object], what: str) -> None:
    """Wait for what has to happen. Raises Failed."""
    if not wait_until(condition):
        raise Failed(f"expected: {what}")


def rung(phone: SocketPhone) -> PhoneCall:
    """The call that rings a phone, as soon as one does."""
    expect(lambda: any(call.incoming for call in phone.calls), f"{phone.user}'s phone rings")
    return next(call for call in phone.calls if call.incoming)


@contextmanager
def ends(call: PhoneCall, other: PhoneCall) -> Iterator[None]:
    """Both sides of a call are over at the end of the block."""
    yield
    expect(lambda: call.state == "ended" or call.phone.requests, "the caller's side has ended")
    expect(lambda: other.state == "ended", "the called side has ended")


def push_wakeup(stage: Stage) -> None:
    """Bob's phone sleeps; the push wakes it, it registers from another address and joins the ringing call."""
    address = f";pn-provider={SERVICE};pn-prid=token1"
    alice, asleep = stage.phone("alice"), stage.phone("bob", parameters=address)
    bob = stage.phone("bob", registered=False, parameters=address)
    asleep.is_now_at(bob)
    stage.on_push = bob.register
    gevent.sleep(2 * AWAKE)
    stage.demo.say("alice calls bob, whose phone is asleep")
    call = alice.invite("bob@example.com")
    ringing = rung(bob)
    stage.demo.say("bob answers")
    ringing.answer()
    expect(lambda: call.state == "answered" and ringing.acknowledged, "alice and bob talk")
    stage.demo.say("alice hangs up")
    with ends(call, ringing):
        call.hangup()


def dtmf_screening(stage: Stage) -> None:
    """Whoever answers has to press 2; the recorded digit is a 5."""
    alice, bob = stage.phone("alice"), stage.phone("bob")
    stage.demo.say("alice dials 88 and bob: whoever answers has to press 2")
    call = alice.invite("88bob@example.com")
    ringing = rung(bob)
    stage.demo.say("somebody answers, and hears the prompt")
    ringing.answer()
    expect(lambda: call.state == "answered" and ringing.acknowledged, "the call is answered")
    channel = stage.freeswitch.sip.channel_of(ringing)
    assert channel is not None
    expect(lambda: channel.running, "FreeSWITCH waits for a key")
    stage.demo.say("and presses 5")
    with ends(call, ringing):
        pressed = template("DTMF")
        stage.demo.event(f"FreeSWITCH ──► DTMF of the callee's channel, digit {pressed.get('DTMF-Digit')}")
        stage.freeswitch.sip.play(pressed, channel)


def call_pickup(stage: Stage) -> None:
    """Charlie takes the call that rings dave."""
    alice, dave, charlie = stage.phone("alice"), stage.phone("dave"), stage.phone("charlie")
    stage.demo.say("alice calls dave, whose phone rings")
    call = alice.invite("dave@example.com")
    rung(dave)
    stage.demo.say("charlie dials *8")
    charlie.invite("*8@example.com")
    taken = rung(charlie)
    expect(lambda: dave.calls[0].cancelled, "dave's phone stops ringing")
    stage.demo.say("charlie answers: the call is his")
    taken.answer()
    expect(lambda: call.state == "answered" and taken.acknowledged, "alice and charlie talk")
    with ends(call, taken):
        call.hangup()
