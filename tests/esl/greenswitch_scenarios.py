"""What can go wrong on an Event Socket, once for any client with greenswitch's interface, and for any server.

Each scenario drives one client against a fake FreeSWITCH, or has that call one server for outbound sockets, and
returns, in a word or two, how it ended. The test runs them with ours; as a program (`python greenswitch_scenarios.py
NAME…`) it runs them with stock greenswitch, and prints a line about each.
"""

from __future__ import annotations

import functools
import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from greenswitch import InboundESL
from greenswitch.esl import NotConnectedError
from outbound_sides import CHANNEL_DATA, CallingFreeSwitch, Channel, OurSide, Side, StockSide

from orchestrator.runtime.esl_link import SafeInboundESL
from orchestrator.testing.esl_rules import Command
from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.recordings import build_frame, build_reply

PATIENCE = 20.0
"""Seconds after which a client that does not come back is said to hang; fewer for stock, which often does."""
STOCK_PATIENCE = 1.5
CPU_SECONDS = 2
"""What a scenario may compute; one that takes more has frozen its loop."""
AT_ONCE = 4
"""Processes of stock: they mostly wait."""

Client = Any
Make = Callable[..., Client]
Inbound = Callable[[FakeFreeSwitch, Make], str]
Outbound = Callable[[CallingFreeSwitch, Side], str]
SCENARIOS: dict[str, Callable[[bool], str]] = {}


def scenario(function: Inbound) -> Inbound:
    """For a client; `make(…)` makes one."""

    def run_it(stock: bool) -> str:
        kind = InboundESL if stock else SafeInboundESL
        clients = []
        with FakeFreeSwitch() as fs:

            def make(host: str = fs.host, port: int = 0, password: str = fs.password, timeout: float = 2) -> Client:
                clients.append(kind(host, port or fs.port, password, timeout))
                return clients[-1]

            outcome = function(fs, make)
        if not stock:  # the stock one may hang in it
            for client in clients:
                client.stop()
        return outcome

    SCENARIOS[function.__name__] = run_it
    return function


def outbound_scenario(function: Outbound) -> Outbound:
    """For a server that FreeSWITCH calls."""

    def run_it(stock: bool) -> str:
        side: Side = StockSide() if stock else OurSide()
        with CallingFreeSwitch() as fs:
            try:
                return function(fs, side)
            finally:
                side.close()

    SCENARIOS[function.__name__] = run_it
    return function


class Seen(list[Any]):
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self._more = Event()

    def __call__(self, event: Any) -> None:
        self.append(event)
        self._more.set()

    def wait(self, count: int = 1) -> bool:
        end = monotonic() + PATIENCE
        while len(self) < count and monotonic() < end:
            self._more.clear()
            self._more.wait(0.05)
        return len(self) >= count


def event(name: str, body: bytes = b"", **headers: str) -> bytes:
    """A text/event-plain frame; values are written as they are, so they have to be encoded already."""
    named = {key if key.startswith("variable_") else key.replace("_", "-"): value for key, value in headers.items()}
    lines = [f"Event-Name: {name}\n", *(f"{key}: {value}\n" for key, value in named.items())]
    block = "".join(lines).encode()
    return build_frame("text/event-plain", block + (b"Content-Length: %d\n\n%b" % (len(body), body) if body else b"\n"))


def within(seconds: float, function: Callable[[], object]) -> str:
    """'returns', 'hangs', or the name of what it raised."""
    try:
        with gevent.Timeout(seconds):
            function()
    except gevent.Timeout:
        return "hangs"
    except NotConnectedError:
        return "NotConnectedError"
    except (Exception, SystemExit) as error:
        return type(error).__name__
    return "returns"


def connected(make: Make, key: str = "*") -> tuple[Client, Seen]:
    client, seen = make(), Seen()
    client.connect()
    client.register_handle(key, seen)
    client.send("event plain ALL")
    return client, seen


@scenario
def forged_header(fs: FakeFreeSwitch, make: Make) -> str:
    _, seen = connected(make)
    fs.write(event("CHANNEL_CREATE", Caller_Caller_ID_Name="Bob%0AEvent-Name%3A%20DTMF%0AX%3A%20", Unique_ID="mine"))
    seen.wait()
    return f"a {seen[0].headers['Event-Name']}"


@scenario
def line_separator_in_value(fs: FakeFreeSwitch, make: Make) -> str:
    _, seen = connected(make)
    fs.write(event("CHANNEL_CREATE", X="a%E2%80%A8Unique-ID%3A%20victim", Y="b"))
    seen.wait()
    return "forged" if "Unique-ID" in seen[0].headers else "one value"


@scenario
def body_of_an_event(fs: FakeFreeSwitch, make: Make) -> str:
    _, seen = connected(make)
    fs.write(event("RECV_INFO", b"Signal=5\nUnique-ID: victim\n", Unique_ID="mine"))
    seen.wait()
    return str(seen[0].headers["Unique-ID"])


@scenario
def json_events(fs: FakeFreeSwitch, make: Make) -> str:
    _, seen = connected(make)
    fs.write(build_frame("text/event-json", b'{"Event-Name":"DTMF","DTMF-Digit":"5"}'))
    return "delivered" if seen.wait() else "lost"


@scenario
def end_inside_a_body(fs: FakeFreeSwitch, make: Make) -> str:
    client, _ = connected(make)
    fs.write(b"Content-Length: 100\nContent-Type: text/event-plain\n\nEvent-Name: DT")
    fs.cut()
    end = monotonic() + PATIENCE
    while client.connected and monotonic() < end:
        gevent.sleep(0.01)
    return "still connected" if client.connected else "ends"


@scenario
def drop_while_a_command_waits(fs: FakeFreeSwitch, make: Make) -> str:
    client, _ = connected(make)
    fs.on("api slow").silent().then(fs.cut)
    return within(PATIENCE, lambda: client.send("api slow"))


@scenario
def drop_behind_events(fs: FakeFreeSwitch, make: Make) -> str:
    client, seen = connected(make)
    client.register_handle("*", lambda _: gevent.sleep(0))
    fs.write(event("DTMF") * 200)
    fs.cut()
    return "all delivered" if seen.wait(200) else "most lost"


@scenario
def drop_is_told(fs: FakeFreeSwitch, make: Make) -> str:
    _, seen = connected(make, "DISCONNECT")
    fs.cut()
    return "told" if seen.wait() else "silent"


@scenario
def peer_says_nothing(fs: FakeFreeSwitch, make: Make) -> str:
    fs.greeting = "silent"
    return within(PATIENCE, make(timeout=0.3).connect)


@scenario
def peer_closes_before_the_greeting(fs: FakeFreeSwitch, make: Make) -> str:
    fs.greeting = "close"
    return within(PATIENCE, make(timeout=0.3).connect)


def _after(fs: FakeFreeSwitch, make: Make, odd: bytes) -> str:
    """Whether events still come after something odd."""
    client, seen = connected(make)
    fs.write(odd)
    fs.write(event("DTMF"))
    end = monotonic() + PATIENCE
    while client.connected and monotonic() < end:
        if any(told.headers.get("Event-Name") == "DTMF" for told in seen):
            return "goes on"
        gevent.sleep(0.01)
    return "zombie" if client.connected else "ends"


@scenario
def frame_without_a_type(fs: FakeFreeSwitch, make: Make) -> str:
    return _after(fs, make, b"X: y\n\n")


@scenario
def reply_nobody_asked_for(fs: FakeFreeSwitch, make: Make) -> str:
    return _after(fs, make, b"Content-Type: command/reply\nReply-Text: +OK\n\n")


@scenario
def body_that_is_no_utf8(fs: FakeFreeSwitch, make: Make) -> str:
    return _after(fs, make, event("MESSAGE", b"caf\xe9"))


@scenario
def length_that_is_none(fs: FakeFreeSwitch, make: Make) -> str:
    return _after(fs, make, b"Content-Length: x\nContent-Type: text/event-plain\n\n")


@scenario
def wrong_password(fs: FakeFreeSwitch, make: Make) -> str:
    client = make(password="wrong")
    outcome = within(PATIENCE, client.connect)
    gevent.sleep(0.05)
    alive = [g for g in (client._receive_events_greenlet, client._process_events_greenlet) if not g.dead]
    return f"{outcome}, {'leaks' if alive else 'clean'}"


@scenario
def second_connect(fs: FakeFreeSwitch, make: Make) -> str:
    client = make()
    client.connect()
    client.stop()
    return within(PATIENCE, client.connect)


@scenario
def long_command(fs: FakeFreeSwitch, make: Make) -> str:
    client, _ = connected(make)
    return within(PATIENCE * 3, lambda: client.send("api " + "x" * 8_000_000))


@scenario
def hidden_second_command(fs: FakeFreeSwitch, make: Make) -> str:
    client, _ = connected(make)
    before = len(fs.commands)
    outcome = within(PATIENCE, lambda: client.send("api uuid_setvar u n Bob\n\napi fsctl shutdown now"))
    gevent.sleep(0.05)
    return f"{outcome}, {len(fs.commands) - before} commands"


@scenario
def reply_never_comes(fs: FakeFreeSwitch, make: Make) -> str:
    client, _ = connected(make)
    client.command_timeout = 0.2
    fs.on("api slow").silent()
    return within(PATIENCE, lambda: client.send("api slow"))


@scenario
def frame_after_a_linger_notice(fs: FakeFreeSwitch, make: Make) -> str:
    notice = b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\nContent-Length: 12\n\nLingering. \n"
    return _after(fs, make, notice)


@scenario
def stop_inside_a_handler(fs: FakeFreeSwitch, make: Make) -> str:
    client, _ = connected(make)
    stopped = Event()
    client.register_handle("DTMF", lambda _: (client.stop(), stopped.set()))
    fs.write(event("DTMF"))
    return "returns" if stopped.wait(PATIENCE * 2) else "hangs"


@scenario
def stop_before_connect(fs: FakeFreeSwitch, make: Make) -> str:
    return within(PATIENCE, make().stop)


@scenario
def nameless_handler_that_raises(fs: FakeFreeSwitch, make: Make) -> str:
    client, seen = connected(make, "HEARTBEAT")
    client.register_handle("DTMF", functools.partial(lambda _, __: 1 / 0, 1))
    fs.write(event("DTMF") + event("HEARTBEAT"))
    return "goes on" if seen.wait() else "dispatcher dead"


@scenario
def ipv6(fs: FakeFreeSwitch, make: Make) -> str:
    with FakeFreeSwitch(host="::1") as six:
        return within(PATIENCE, make(host="::1", port=six.port).connect)


@scenario
def undefined_value(fs: FakeFreeSwitch, make: Make) -> str:
    _, seen = connected(make)
    fs.write(event("DTMF", X="_undef_"))
    seen.wait()
    return repr(seen[0].headers["X"])


@scenario
def stop_at_once(fs: FakeFreeSwitch, make: Make) -> str:
    client, _ = connected(make)
    fs.on("exit").reply_raw(build_reply("+OK bye")).then(fs.cut)
    begin = monotonic()
    client.stop()
    return "at once" if monotonic() - begin < 0.4 else "late"


@scenario
def connection_refused(fs: FakeFreeSwitch, make: Make) -> str:
    fs.stop()
    return within(PATIENCE, make().connect)


@scenario
def star_beside_a_specific_handler(fs: FakeFreeSwitch, make: Make) -> str:
    client, seen = connected(make)
    client.register_handle("DTMF", lambda _: None)
    fs.write(event("DTMF"))
    return "called" if seen.wait() else "left out"


def completed(fs: FakeFreeSwitch, command: Command, **headers: str) -> None:
    """The application of this sendmsg has ended. Where we name no event-uuid, FreeSWITCH makes one."""
    app, args = command.headers["execute-app-name"], command.headers["execute-app-arg"]
    token = command.headers.get("event-uuid", "made-by-freeswitch")
    given = {"Application_UUID": token, "variable_current_application": app, **headers}
    fs.write(event("CHANNEL_EXECUTE_COMPLETE", b"", Application=app, Application_Data=args, **given))


def outcome_of(channel: Channel, args: str, timeout: float | None = None, app: str = "playback") -> str:
    """Have an application run: the arguments of the one whose end it is told, or why it is not told any."""
    told: list[Any] = []
    how = within(PATIENCE, lambda: told.append(channel.run(app, args, timeout)))
    return str(told[0].headers["Application-Data"]) if told else how


def on_a_channel(fs: CallingFreeSwitch, side: Side, application: Callable[[Channel], str]) -> AsyncResult[str]:
    """FreeSWITCH hands a channel over: what the application makes of it."""
    made: AsyncResult[str] = AsyncResult()
    fs.call(side.serve(lambda channel: made.set(application(channel))))
    return made


@outbound_scenario
def one_playback(fs: CallingFreeSwitch, side: Side) -> str:
    """Nothing odd: what the others are to be held against."""
    made = on_a_channel(fs, side, lambda channel: outcome_of(channel, "mine"))
    completed(fs, fs.commands.wait_for("sendmsg*"))
    return str(made.get())


@outbound_scenario
def handler_of_ones_own(fs: CallingFreeSwitch, side: Side) -> str:
    def application(channel: Channel) -> str:
        channel.session.register_handle("CHANNEL_EXECUTE_COMPLETE", lambda _: None)
        return outcome_of(channel, "mine")

    made = on_a_channel(fs, side, application)
    completed(fs, fs.commands.wait_for("sendmsg*"))
    return str(made.get())


@outbound_scenario
def playback_of_somebody_else(fs: CallingFreeSwitch, side: Side) -> str:
    """uuid_broadcast plays something to the channel too."""
    made = on_a_channel(fs, side, lambda channel: outcome_of(channel, "mine"))
    mine = fs.commands.wait_for("sendmsg*")
    completed(fs, replace(mine, headers={**mine.headers, "event-uuid": "theirs", "execute-app-arg": "theirs"}))
    completed(fs, mine)
    return str(made.get())


@outbound_scenario
def playback_during_an_application(fs: CallingFreeSwitch, side: Side) -> str:
    """As recorded: the variables of an application that ends are those of what was begun last."""
    made = on_a_channel(fs, side, lambda channel: outcome_of(channel, "15000", app="sleep"))
    completed(fs, fs.commands.wait_for("sendmsg*"), variable_current_application="playback")
    return str(made.get())


@outbound_scenario
def three_playbacks_at_once(fs: CallingFreeSwitch, side: Side) -> str:
    def application(channel: Channel) -> str:
        waiting = [gevent.spawn(outcome_of, channel, args) for args in ("a", "b", "c")]
        return " ".join(greenlet.get() for greenlet in waiting)

    made = on_a_channel(fs, side, application)
    fs.commands.wait_for("sendmsg*", 3)
    for command in fs.commands.matching("sendmsg*"):
        completed(fs, command)
    return str(made.get())


@outbound_scenario
def playback_after_one_that_timed_out(fs: CallingFreeSwitch, side: Side) -> str:
    def application(channel: Channel) -> str:
        outcome_of(channel, "a", timeout=0.05)
        return outcome_of(channel, "b")

    made = on_a_channel(fs, side, application)
    completed(fs, fs.commands.wait_for("sendmsg*", 2))
    return str(made.get())


@outbound_scenario
def address_in_use(fs: CallingFreeSwitch, side: Side) -> str:
    return within(PATIENCE, lambda: side.serve(lambda _: None, port=fs.port))


@outbound_scenario
def server_on_ipv6(fs: CallingFreeSwitch, side: Side) -> str:
    def serve() -> None:
        fs.call(side.serve(lambda _: None, host="::1"))
        fs.commands.wait_for("connect")

    return within(PATIENCE, serve)


@outbound_scenario
def two_at_once_where_one_may(fs: CallingFreeSwitch, side: Side) -> str:
    """Both come in before either has told its channel."""
    running, over = Seen(), Event()

    def application(channel: Channel) -> None:
        running(channel)
        over.wait()

    address = side.serve(application, limit=1)
    told = fs.on("connect").reply_raw(CHANNEL_DATA).held()
    fs.call(address)
    fs.call(address)
    end = monotonic() + PATIENCE
    while (fs.accepted < 2 or told.hits < len(fs.connections)) and monotonic() < end:
        gevent.sleep(0.001)  # until each is asked for its channel, or closed
    told.release()
    running.wait(len(fs.connections))
    over.set()
    return f"{len(running)} at once"


@outbound_scenario
def time_to_accept(fs: CallingFreeSwitch, side: Side) -> str:
    """Of five calls, one after the other, the quickest but for the first: the machine may be busy."""
    address = side.serve(lambda _: None)
    took = []
    for count in range(1, 6):
        begin = monotonic()
        fs.call(address)
        fs.commands.wait_for("connect", count)
        took.append(monotonic() - begin)
    return "at once" if min(took[1:]) < 0.05 else "late"


@outbound_scenario
def lingering(fs: CallingFreeSwitch, side: Side) -> str:
    """Without seconds FreeSWITCH holds the session for as long as the connection stays."""
    fs.call(side.serve(lambda _: None))
    return fs.commands.wait_for("linger*").text


def run(name: str, *, stock: bool) -> str:
    """One scenario, with greenswitch as it comes or with ours."""
    return SCENARIOS[name](stock)


def run_stock(names: Sequence[str]) -> None:
    """Each in a process of its own, forked from this one: some freeze the whole loop or end it."""
    running: dict[int, str] = {}
    waiting = list(names)
    while waiting or running:
        if waiting and len(running) < AT_ONCE:
            name = waiting.pop(0)
            if (pid := os.fork()) == 0:
                resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
                _told(name, run(name, stock=True))
                os._exit(0)
            running[pid] = name
        else:
            pid, status = os.wait()
            name = running.pop(pid)
            if os.WIFSIGNALED(status):
                _told(name, "freezes")


def _told(name: str, outcome: str) -> None:
    os.write(1, f"{name} {outcome}\n".encode())


if __name__ == "__main__":
    PATIENCE = STOCK_PATIENCE
    logging.disable()
    run_stock(sys.argv[1:])
