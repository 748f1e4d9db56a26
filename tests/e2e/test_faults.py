"""FreeSWITCH misbehaves, SIP goes on: killed, stopped, restarted, flooding, talking nonsense, refusing us.

One `orchestrator run` in a process of its own per test, with doubles of FreeSWITCH on loopback. What is asserted is
what its user would see: how late SIP is, what callers get, what the log says and `/readyz`, and what the process holds.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.recordings import Recording, build_frame, rewrite
from orchestrator.testing.sockets import SocketPhone, wait_until

RECORDINGS = Path(__file__).parents[1] / "fixtures" / "esl"

FLOWS = """flowlang: 1
flows:
  probe:
    on: invite
    when: call.target.user == 'probe'
    do: [reply: 486]
  ask_one:
    on: invite
    when: call.target.user == 'ask1'
    do:
      - fs.api: {command: status, server: fs1}
        as: said
        on_error:
          - reply: {code: 503, reason: '${error.type}'}
          - stop:
      - reply: {code: 486, reason: '${said.text.prefix(7)}'}
  ask_two:
    on: invite
    when: call.target.user == 'ask2'
    do:
      - fs.api: {command: status, server: fs2}
        as: said
        on_error:
          - reply: {code: 503, reason: '${error.type}'}
          - stop:
      - reply: {code: 486, reason: '${said.text.prefix(7)}'}
  listen:
    on: invite
    vars: {heard: ''}
    do:
      - subscribe: dtmf
        do:
          - set: {heard: '${vars.heard}${event.digit}'}
      - subscribe: dtmf
        where: {digit: '#'}
        do: [log: '${call.to.user} is through']
      - relay: {to: registered, ring: 60s}
    on_end: [log: '${call.from.user} to ${call.to.user} heard [${vars.heard}] ended [${call.end_reason ?? ""}]']
  links:
    on: fs.link
    do: [log: 'link ${event.server} ${event.state} [${event.reason ?? ""}]']
"""

QUICK = {"timeout": "1s", "silence": "1s"}
"""Patience with a server that says nothing, so that a test need not have the fifteen seconds of the default."""


class Site:
    """A server with doubles of FreeSWITCH and phones."""

    def __init__(self, server: Any, fakes: list[FakeFreeSwitch], phones: Callable[[str], SocketPhone]) -> None:
        self.server = server
        self.fakes = fakes
        self.phone = phones
        self.caller = phones("alice")

    def ask(self, user: str, seconds: float = 30.0) -> tuple[int, str]:
        """Final status and reason of a call to `user`."""
        call = self.caller.invite(f"{user}@example.com")
        assert wait_until(lambda: call.statuses and call.statuses[-1] >= 200, seconds), call.statuses
        return call.statuses[-1], call.responses[-1].reason.decode()

    def talk(self, name: str) -> PhoneCall:
        """A call that has been answered; returns the caller's side."""
        phone = self.phone(name)
        phone.on_invite = PhoneCall.answer
        phone.register()
        assert wait_until(lambda: phone.registered == [200])
        call = self.caller.invite(f"{name}@example.com")
        assert wait_until(lambda: call.state == "answered")
        return call

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.server.admin[0], self.server.admin[1], timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> dict[str, float]:
        """Values of a metric by what stands in its braces."""
        found = re.findall(rf"^orchestrator_{name}(?:\{{(.*?)\}})? (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return {labels: float(value) for labels, value in found}

    def up(self) -> int:
        return int(sum(self.metric("esl_up").values()))

    def lines(self, text: str) -> list[str]:
        return [line for line in self.server.log if text in line]

    def says(self, text: str, count: int = 1, seconds: float = 30.0) -> bool:
        """Whether the log has so many lines with this in it by then."""
        return wait_until(lambda: len(self.lines(text)) >= count, seconds)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.server.process.pid}/fd").iterdir()))

    def resident(self) -> int:
        """KiB in memory."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])


@pytest.fixture
def site(serve: Any, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """`site(2, **keys of each server)`: a server linked to two doubles, all links up unless `up=False`."""
    stack = ExitStack()
    flows = tmp_path / "faults.flow.yaml"
    flows.write_text(FLOWS)

    def make(count: int = 1, up: bool = True, passwords: str = "s3cret", **keys: object) -> Site:
        fakes = [stack.enter_context(FakeFreeSwitch(password="s3cret")) for _ in range(count)]
        servers = {
            f"fs{n}": {"host": fs.host, "port": fs.port, "password": passwords, "probe": "0s", **keys}
            for n, fs in enumerate(fakes, 1)  # they have no SIP side
        }
        for fs in fakes if not up else ():
            fs.stop()
        if count < 2:
            servers["fs2"] = {"host": "127.0.0.1", "port": 1, "password": "s3cret", "probe": "0s"}
        server = serve(flows=[str(flows)], freeswitch=servers)

        def phone(name: str) -> SocketPhone:
            made = SocketPhone(f"{name}@example.com", server.sip)
            stack.callback(made.close)
            return made

        found = Site(server, fakes, phone)
        assert not up or wait_until(lambda: found.up() == len(fakes))
        return found

    yield make
    stack.close()


def _refused(call: PhoneCall) -> bool:
    return call.statuses[-1:] == [486]


class Pulse:
    """Calls `probe` all the time and counts the answers."""

    def __init__(self, site: Site) -> None:
        self._phone = site.phone("pulse")
        self.beats = 0
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            call = self._phone.invite("probe@example.com")
            assert wait_until(partial(_refused, call))
            self.beats += 1
            gevent.sleep(0.01)

    def goes_on(self) -> bool:
        """Whether calls are answered that are made from now on."""
        wanted = self.beats + 3
        return wait_until(lambda: self.beats >= wanted)

    def stop(self) -> None:
        assert not self._greenlet.dead and self.goes_on(), "SIP stands still"
        self._greenlet.kill()


@pytest.fixture(scope="module")
def dtmf() -> Recording:
    return Recording.load(RECORDINGS / "dtmf.esl")


class Channels:
    """Channels of one double: tells of them and presses keys on them, each event with a sequence number of its own."""

    def __init__(self, fs: FakeFreeSwitch, recording: Recording) -> None:
        self.fs = fs
        self._create, self._dtmf = recording.find("CHANNEL_CREATE").block, recording.find("DTMF").block
        self._sequence = 0

    def _frame(self, block: bytes, headers: Mapping[str, str | None]) -> bytes:
        self._sequence += 1
        own = {"Core-UUID": self.fs.core_uuid, "Event-Sequence": str(self._sequence), "Other-Leg-Unique-ID": None}
        return build_frame("text/event-plain", rewrite(block, {**own, **headers}))

    def created(self, uuid: str, call: PhoneCall) -> bytes:
        wanted = {"Unique-ID": uuid, "Call-Direction": "inbound", "variable_sip_call_id": call.call_id.decode()}
        return self._frame(self._create, wanted)

    def pressed(self, uuid: str, digit: str) -> bytes:
        return self._frame(self._dtmf, {"Unique-ID": uuid, "DTMF-Digit": digit})

    def row(self, uuid: str) -> dict[str, str]:
        return {"uuid": uuid, "direction": "inbound", "callstate": "ACTIVE"}


def test_a_killed_server_costs_its_calls_and_nothing_else(site: Any, dtmf: Recording) -> None:
    here = site()
    (fs,) = here.fakes
    assert here.ask("ask1") == (486, "UP 0 ye")
    through, beside = here.talk("bob"), here.talk("carol")
    channels = Channels(fs, dtmf)
    fs.write(channels.created("chan-1", through) + channels.pressed("chan-1", "#"))
    assert wait_until(lambda: here.lines("bob is through"))
    fs.stop()
    assert wait_until(lambda: here.lines("link fs1 down"), 8), "an end of file, not its silence"
    status, said = here.get("/readyz")
    assert status == 503 and "fs1" in json.loads(said)["reasons"]["freeswitch"]
    assert here.ask("ask1") == (503, "esl.down"), "the flow goes its other way, without the wait of esl.timeout"
    assert (through.state, beside.state) == ("answered", "answered"), "SIP alone does not end with it"
    fs.core_uuid = "another-core"
    fs.start()
    assert wait_until(lambda: here.lines("link fs1 up"))
    assert wait_until(lambda: through.state == "ended"), "what went through the core before is lost"
    assert beside.state == "answered"
    assert wait_until(lambda: here.lines("alice to bob heard [#] ended [channel lost]"))
    assert here.ask("ask1") == (486, "UP 0 ye")
    assert here.get("/readyz")[0] == 200
    beside.hangup()
    assert wait_until(lambda: here.metric("flow_runs") == here.metric("calls") == {"": 0.0}), "no flow is stuck"


def test_a_call_goes_on_over_a_link_that_was_lost(site: Any, dtmf: Recording) -> None:
    """The same core answers again: the channel is still its own, and one that began meanwhile is asked about."""
    here = site()
    (fs,) = here.fakes
    call, late = here.talk("bob"), here.talk("carol")
    channels = Channels(fs, dtmf)
    fs.write(channels.created("chan-1", call) + channels.pressed("chan-1", "1"))
    fs.channels = [channels.row("chan-1"), channels.row("chan-2")]
    dump = {"Event-Name": "CHANNEL_DATA", "Core-UUID": fs.core_uuid, "Unique-ID": "chan-2", "Call-Direction": "inbound"}
    fs.on("api uuid_dump chan-2 json").reply(json.dumps(dump | {"variable_sip_call_id": late.call_id.decode()}))
    fs.cut()
    fs.commands.wait_for("api uuid_dump chan-2 json")
    assert not fs.commands.matching("api uuid_dump chan-1 json")
    fs.wait_subscribed("DTMF")
    gevent.sleep(0.1)
    fs.write(channels.pressed("chan-1", "2") + channels.pressed("chan-2", "9"))
    gevent.sleep(0.1)
    call.hangup()
    late.hangup()
    assert wait_until(lambda: here.lines("alice to bob heard [12] ended [normal]"))
    assert wait_until(lambda: here.lines("alice to carol heard [9] ended [normal]"))


def test_fifty_restarts_leave_nothing_behind(site: Any) -> None:
    """Five servers, ten times each, at the same time; SIP as quick as ever."""
    here = site(5)
    before = here.descriptors()
    pulse = Pulse(here)

    def restart(fs: FakeFreeSwitch, name: str) -> None:
        for turn in range(1, 11):
            fs.restart()
            assert here.says(f"link {name} up", turn + 1), (name, turn)

    workers = [gevent.spawn(restart, fs, f"fs{number}") for number, fs in enumerate(here.fakes, 1)]
    gevent.joinall(workers, timeout=120, raise_error=True)
    assert all(worker.successful() for worker in workers)
    pulse.stop()
    assert here.up() == 5
    assert wait_until(lambda: here.descriptors() <= before + 1), "two connections for each server, as before"
    assert [len(fs.connections) for fs in here.fakes] == [2] * 5
    assert len(here.lines("event_socket_down")) <= 5 * 10
    assert sum(here.metric("turns_failed_total").values()) == 0


def test_a_stopped_server_delays_neither_sip_nor_the_other_server(site: Any, dtmf: Recording) -> None:
    """It accepts, and says nothing: SIGSTOP. Who asks it gets an error in time, everybody else notices nothing."""
    here = site(2, **QUICK)
    one, two = here.fakes
    call = here.talk("bob")
    channels = Channels(two, dtmf)
    two.write(channels.created("chan-1", call))
    pulse = Pulse(here)
    one.frozen = True
    asked = gevent.spawn(here.ask, "ask1")
    assert here.ask("ask2") == (486, "UP 0 ye")
    assert not asked.ready(), "a command to the other server does not wait"
    assert pulse.goes_on()
    assert asked.get(timeout=60) in ((503, "esl.timeout"), (503, "esl.down"))
    assert wait_until(lambda: here.lines("link fs1 down")), "noticed by its silence"
    assert "no reply within 1 s" in here.lines("link fs1 down")[0]
    for digit in "123456":
        two.write(channels.pressed("chan-1", digit))
        gevent.sleep(0.05)
    assert here.get("/readyz")[0] == 200, "one server is enough to be ready"
    one.frozen = False
    assert wait_until(lambda: len(here.lines("link fs1 up")) == 2)
    pulse.stop()
    call.hangup()
    assert wait_until(lambda: here.lines("alice to bob heard [123456]"))


def test_a_flood_of_events_delays_no_timer_and_mixes_up_no_call(site: Any, dtmf: Recording) -> None:
    """20,000 events as fast as TCP takes them: twenty calls with a thousand digits each, all heard, all in order."""
    here = site()
    (fs,) = here.fakes
    calls = [here.talk(f"user{number}") for number in range(20)]
    channels = Channels(fs, dtmf)
    fs.write(b"".join(channels.created(f"chan-{number}", call) for number, call in enumerate(calls)))
    digits = "".join(str(number * 7 % 10) for number in range(999)) + "#"
    flood = [b"".join(channels.pressed(f"chan-{number}", digit) for number in range(len(calls))) for digit in digits]
    silent = here.phone("silent")
    silent.on_invite = lambda call: None
    silent.register()
    assert wait_until(lambda: silent.registered == [200])
    before = here.resident()
    sending = gevent.spawn(lambda: [fs.write(octets) for octets in flood])
    gevent.sleep(0.05)
    here.caller.invite("silent@example.com")
    sending.join(60)
    assert wait_until(lambda: len(here.lines("is through")) == len(calls), 60)
    assert here.metric("esl_events_total")['server="fs1"'] >= 20_020

    def invites() -> list[int]:
        return [at for at, data in silent.arrivals if data.startswith(b"INVITE")]

    # A fast machine has read the flood before timer A first fires (T1 = 500 ms): wait for that repetition.
    assert wait_until(lambda: len(invites()) >= 2, 30), "the call placed during the flood was held up"
    first, *repeated = invites()
    assert all(at - first >= due * 1e9 - 5e6 for at, due in zip(repeated, (0.5, 1.5, 3.5), strict=False)), "not earlier"
    assert here.resident() - before < 80 * 1024
    for call in calls:
        call.hangup()
    for number in range(len(calls)):
        assert here.says(f"alice to user{number} heard")
        heard = here.lines(f"alice to user{number} heard")[0].partition("[")[2].partition("]")[0]
        assert heard == digits
    assert here.metric("flow_events_dropped_total") == {"": 0.0}


NONSENSE = {
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>\n\n",
    "noise": bytes(range(256)) * 64 + b"\n\n",
    "negative length": b"Content-Length: -5\nContent-Type: text/event-plain\n\n",
    "endless length": b"Content-Length: 99999999999\nContent-Type: text/event-plain\n\nx",
    "endless head": b"A: b\n" * 100_000,
    "bad event": b"Content-Length: 6\nContent-Type: text/event-json\n\n{{{{{{",
}


def test_nonsense_costs_the_link_at_most(site: Any, dtmf: Recording) -> None:
    """Each of six servers says something else that is no Event Socket; the seventh speaks one octet at a time."""
    here = site(7)
    *mad, slow = here.fakes
    call = here.talk("bob")
    slow.chunk = 1
    channels = Channels(slow, dtmf)
    pulse = Pulse(here)
    spoken = gevent.spawn(
        slow.write, channels.created("chan-1", call) + channels.pressed("chan-1", "4") + channels.pressed("chan-1", "2")
    )
    for fs, octets in zip(mad, NONSENSE.values(), strict=True):
        fs.write(octets)
    assert wait_until(lambda: here.up() == 7 and all(len(fs.connections) == 2 for fs in mad), 60)
    assert sum(here.metric("esl_malformed_total").values()) >= len(mad)
    spoken.join(60)
    gevent.sleep(0.2)
    pulse.stop()
    call.hangup()
    assert wait_until(lambda: here.lines("alice to bob heard [42]"))
    assert sum(here.metric("turns_failed_total").values()) == 0


@pytest.mark.parametrize("why", ["password", "access list"])
def test_a_refusal_is_told_once_and_sip_goes_on(site: Any, why: str) -> None:
    here = site(1, up=False, passwords="wrong" if why == "password" else "s3cret")
    (fs,) = here.fakes
    if why == "access list":
        fs.greeting = "rude"
    fs.start()
    assert wait_until(lambda: here.lines("event_socket_refused"), 60)
    status, said = here.get("/readyz")
    assert status == 503
    assert ("refused the password" if why == "password" else "Access Denied") in json.loads(said)["reasons"][
        "freeswitch"
    ]
    assert here.ask("probe") == (486, "Busy Here")
    assert here.ask("ask1") == (503, "esl.down")
    gevent.sleep(1.0)
    assert len(here.lines("event_socket_refused")) == 1
    assert not here.lines("s3cret") and not here.lines("wrong"), "the password stays out of the log"
    assert fs.accepted <= 2, "not hammered: FreeSWITCH would lock us out for good"
