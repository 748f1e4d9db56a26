"""The supervisor of one server's connections: states, commands, loss and return, refusal, silence, the end."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent.event import Event
from greenlet import greenlet
from link_core import Core, Soon
from loguru import logger

from orchestrator.errors import EslDown, EslError, EslInjection, EslTimeout
from orchestrator.esl.backoff import Backoff
from orchestrator.esl.codec import EslEvent
from orchestrator.esl.translate import needed
from orchestrator.runtime import esl_commands, esl_connection
from orchestrator.runtime.esl_link import EslLink, EslServer, Snapshot
from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.recordings import build_frame, build_reply
from orchestrator.testing.samples import HEARTBEAT

pytestmark = pytest.mark.usefixtures("logged")


Connect = Callable[..., tuple[EslLink, Core]]


@pytest.fixture
def fs(recording) -> Iterator[FakeFreeSwitch]:
    with FakeFreeSwitch(recording("dtmf")) as server:
        yield server


@pytest.fixture
def connect(fs: FakeFreeSwitch) -> Iterator[Connect]:
    """`connect(up=True, **options of EslLink)`: a link to the fake server."""
    links = []

    def make(up: bool = True, server: EslServer | None = None, **options: Any) -> tuple[EslLink, Core]:
        core = Core()
        options.setdefault("backoff", Soon())
        options.setdefault("subscribe", lambda: needed(["dtmf"]))
        server = server or EslServer("fs1", fs.host, fs.port, fs.password)
        link = EslLink(server, on_event=core.event, on_state=core.state, on_snapshot=core.snapshot, **options)
        links.append(link)
        link.start()
        assert not up or link.wait_up(5)
        return link, core

    yield make
    for link in links:
        link.stop(0)


# --- coming up
# -------------------------------------------------------------------------------------------------------------


def test_the_way_up(fs: FakeFreeSwitch, connect: Connect) -> None:
    fs.channels = [{"uuid": "a", "direction": "inbound"}]
    begin = monotonic()
    link, core = connect()
    assert core.states == ["connecting", "authenticating", "syncing", "up"]
    assert [c.text for c in fs.commands] == [
        "auth ClueCon",
        "auth ClueCon",
        "event plain BACKGROUND_JOB CHANNEL_ANSWER CHANNEL_BRIDGE CHANNEL_CREATE CHANNEL_DESTROY CHANNEL_UUID DTMF "
        "HEARTBEAT",
        "log crit",
        "api global_getvar core_uuid",
        "api show channels as json",
    ]
    (snapshot,) = core.snapshots
    assert (snapshot.core_uuid, snapshot.rows) == (fs.core_uuid, fs.channels)
    assert begin <= snapshot.since <= monotonic()
    assert link.core_uuid == fs.core_uuid
    assert core.heard[-1] == "up"
    assert (link.counters.connects, link.counters.drops) == (2, 0)


def test_the_snapshot_comes_between_the_events_before_and_after_it(
    fs: FakeFreeSwitch, connect: Connect, recording
) -> None:
    keys = recording("dtmf").only("DTMF").events
    rule = fs.on("api show channels as json").held()
    _, core = connect(up=False)
    fs.commands.wait_for("api show channels*")
    fs.emit(keys[0])
    rule.release()
    core.wait_state("up")
    fs.emit(keys[1])
    core.wait(lambda: len(core.events) == 2)
    order = [one for one in core.heard if isinstance(one, (EslEvent, Snapshot)) or one == "up"]
    assert [getattr(one, "name", None) or type(one).__name__ for one in order] == ["DTMF", "Snapshot", "str", "DTMF"]


def test_events_come_in_order_and_only_those_asked_for(fs: FakeFreeSwitch, connect: Connect, recording) -> None:
    _, core = connect()
    taken = fs.play(recording("burst20"))
    core.wait(lambda: len(core.events) == taken)
    wanted = [e for e in recording("burst20").events if e.name in needed(["dtmf"])]
    assert [e.sequence for e in core.events] == [e.sequence for e in wanted]
    assert [e.headers for e in core.events[:50]] == [{**e.headers, "Core-UUID": fs.core_uuid} for e in wanted[:50]]


def test_userauth(fs: FakeFreeSwitch, connect: Connect) -> None:
    fs.users["flows@example.com"] = "s3cret"
    connect(server=EslServer("fs1", fs.host, fs.port, "s3cret", user="flows@example.com"))
    assert fs.commands[0].text == "userauth flows@example.com:s3cret"


def test_a_server_without_the_right_to_list_channels(fs: FakeFreeSwitch, connect: Connect, logged: list[str]) -> None:
    fs.on("api *").reply("-ERR permission denied\n")
    link, core = connect()
    assert (core.snapshots, link.core_uuid) == ([], "")
    assert any("channel_list_missing" in line for line in logged)


def test_what_is_heard_while_we_catch_up_may_be_answered(fs: FakeFreeSwitch, connect: Connect, recording) -> None:
    """Subscribed means that events come: a flow that one of them starts need not fail because the list of channels is
    still awaited."""
    listing = fs.on("api show channels as json").held()
    link, core = connect(up=False)
    fs.commands.wait_for("api show channels as json")
    fs.emit(recording("dtmf").find("DTMF"))
    core.wait(lambda: bool(core.events))
    assert link.state == "syncing"
    assert link.api("status").startswith("UP")
    assert link.bgapi("status").startswith("UP")
    listing.release()
    core.wait_state("up")


def test_lost_events_are_counted_and_the_channels_listed_once_more(
    fs: FakeFreeSwitch, connect: Connect, recording, logged: list[str]
) -> None:
    """The list comes behind what was received before it, and once however often something was lost."""
    link, core = connect(catch_up_after=0.02)
    fs.channels = [{"uuid": "still-there", "direction": "inbound", "callstate": "ACTIVE"}]
    assert fs.lose(216) == 1, "only the connection that brings the events"
    fs.lose(4)
    fs.emit(recording("dtmf").find("DTMF"))
    core.wait(lambda: len(core.snapshots) == 2)
    assert link.counters.lost_events == 220
    assert [row["uuid"] for row in core.snapshots[1].rows] == ["still-there"]
    assert core.snapshots[1].since > core.snapshots[0].since
    assert core.heard.index(core.events[0]) < core.heard.index(core.snapshots[1])
    assert fs.commands.texts.count("api show channels as json") == 2
    assert sum("events_lost" in line for line in logged) == 1
    assert link.state == "up"


def test_a_link_that_drops_meanwhile_asks_for_the_channels_anyway(fs: FakeFreeSwitch, connect: Connect) -> None:
    _, core = connect(catch_up_after=60)
    fs.lose(1)
    fs.cut()
    core.wait_state("up", 2)
    core.wait(lambda: len(core.snapshots) == 2)


def test_a_user_without_the_right_to_the_log_is_served(fs: FakeFreeSwitch, connect: Connect, logged: list[str]) -> None:
    fs.on("log *").reply("-ERR permission denied")
    connect()
    assert any("event_log_denied" in line for line in logged)


def test_names_that_are_new_after_a_reload(fs: FakeFreeSwitch, connect: Connect) -> None:
    names = {"DTMF"}
    link, _ = connect(subscribe=lambda: names)
    names |= {"RECV_INFO", "CUSTOM avmd::beep"}
    link.resubscribe()
    link.resubscribe()
    assert [c.text for c in fs.commands.matching("event *")] == [
        "event plain DTMF",
        "event plain RECV_INFO",
        "event plain CUSTOM avmd::beep",
    ]
    fs.cut()
    fs.commands.wait_for("event *", 5)
    assert [c.text for c in fs.commands.matching("event *")[3:]] == [
        "event plain DTMF RECV_INFO",
        "event plain CUSTOM avmd::beep",
    ]


def test_load_is_read_from_heartbeats(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, core = connect()
    fs.emit(EslEvent.plain(HEARTBEAT), {"Session-Count": "7"})
    core.wait(lambda: bool(core.events))
    assert link.load.sessions == 7


# --- commands
# --------------------------------------------------------------------------------------------------------------


def test_api_goes_over_its_own_connection(fs: FakeFreeSwitch, connect: Connect) -> None:
    """FreeSWITCH delivers no event on a connection that waits for an api."""
    link, core = connect()
    rule = fs.on("api msleep *").reply("+OK\n").held()
    slow = gevent.spawn(link.api, "msleep 1500")
    command = fs.commands.wait_for("api msleep*")
    assert command.connection != fs.commands.matching("event *")[0].connection
    fs.heartbeat()
    core.wait(lambda: bool(core.events))
    assert not slow.ready()
    rule.release()
    assert slow.get(timeout=5) == "+OK\n"


def test_bgapi_waits_for_its_own_job(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, _ = connect()
    fs.on("bgapi originate one*").reply("+OK one\n")
    fs.on("bgapi originate two*").reply("-ERR two\n\nwith an empty line")
    jobs = [gevent.spawn(link.bgapi, f"originate {name}") for name in ("one", "two")]
    assert [job.get(timeout=5) for job in jobs] == ["+OK one\n", "-ERR two\n\nwith an empty line"]
    first, second = (c.headers["job-uuid"] for c in fs.commands.matching("bgapi *"))
    assert first != second


def test_a_job_may_end_before_its_reply_is_read(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, core = connect()
    rule = fs.on("bgapi status").reply_raw(b"")
    job = gevent.spawn(link.bgapi, "status")
    command = fs.commands.wait_for("bgapi status")
    fs.job_done(command.headers["job-uuid"], "status", "early")
    core.wait(lambda: bool(core.events))
    assert not job.ready()
    fs.connections[1].write(build_reply("+OK Job-UUID: x"))
    assert job.get(timeout=5) == "early"
    assert rule.hits == 1


def test_a_refused_bgapi_is_an_error(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, _ = connect()
    fs.on("bgapi *").reply_raw(build_reply("-ERR permission denied"))
    with pytest.raises(EslError, match="permission denied") as caught:
        link.bgapi("fsctl shutdown")
    assert caught.value.command == "bgapi fsctl shutdown"


def test_execute_waits_for_the_application(fs: FakeFreeSwitch, connect: Connect, recording) -> None:
    link, _ = connect(subscribe=lambda: needed(["execute_done"]))
    done = recording("dtmf").find("CHANNEL_EXECUTE_COMPLETE")
    run = gevent.spawn(link.run, "u-1", "playback", "/tmp/a b.wav")
    command = fs.commands.wait_for("sendmsg u-1 execute playback /tmp/a b.wav")
    fs.emit(done)
    fs.emit(done, {"Application-UUID": command.headers["event-uuid"], "Application-Response": "FILE PLAYED"})
    assert run.get(timeout=5).get("Application-Response") == "FILE PLAYED"
    link.execute("u-1", "answer")


def test_execute_ends_with_its_channel(fs: FakeFreeSwitch, connect: Connect, recording) -> None:
    link, _ = connect(subscribe=lambda: needed(["execute_done"]))
    run = gevent.spawn(link.run, "u-1", "playback", "x")
    fs.commands.wait_for("sendmsg u-1*")
    fs.emit(recording("dtmf").find("CHANNEL_DESTROY"))
    fs.emit(recording("dtmf").find("CHANNEL_DESTROY"), {"Unique-ID": "u-1"})
    with pytest.raises(EslError, match="channel has ended"):
        run.get(timeout=5)
    fs.on("sendmsg *").reply("-ERR invalid session id [u-9]")
    with pytest.raises(EslError, match="invalid session id"):
        link.execute("u-9", "answer")


def test_a_long_application_is_not_a_long_wait_for_its_reply(
    fs: FakeFreeSwitch, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esl_commands, "REPLY_TIMEOUT", 0.05)
    link, _ = connect()
    fs.on("sendmsg *").held()
    with pytest.raises(EslTimeout):
        link.run("u-1", "rxfax", "/tmp/f.tif", timeout=3600)


def test_nothing_is_written_of_an_injection(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, _ = connect()
    count = len(fs.commands)
    for command in (link.api, link.bgapi):
        with pytest.raises(EslInjection):
            command("uuid_setvar u n Bob\n\napi fsctl shutdown now")
    with pytest.raises(EslInjection):
        link.execute("u\nv", "answer")
    assert link.api("status").startswith("UP")
    assert len(fs.commands) == count + 1


def test_a_late_reply_is_not_given_to_the_next_command(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, _ = connect()
    rule = fs.on("api slow").reply("late").held()
    with pytest.raises(EslTimeout) as caught:
        link.api("slow", timeout=0.05)
    assert caught.value.command == "api slow"
    after = gevent.spawn(link.api, "status")
    rule.release()
    assert after.get(timeout=5).startswith("UP")
    assert link.counters.timeouts == 1


def test_replies_go_to_those_who_asked(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, _ = connect()
    for number in range(60):
        fs.on(f"api echo {number}").reply(f"answer {number}")
    asked = [gevent.spawn(link.api, f"echo {number}") for number in range(60)]
    assert [one.get(timeout=5) for one in asked] == [f"answer {number}" for number in range(60)]


def test_no_commands_while_it_is_down(connect: Connect, fs: FakeFreeSwitch) -> None:
    fs.greeting = "silent"
    link, core = connect(up=False)
    core.wait_state("authenticating")
    for call in (lambda: link.api("status"), lambda: link.bgapi("status"), lambda: link.execute("u", "answer")):
        with pytest.raises(EslDown):
            call()


# --- loss and return
# --------------------------------------------------------------------------------------------------------


def test_the_reason_of_an_outage_is_kept_until_it_is_over(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, core = connect()
    assert link.reason == ""
    fs.stop()
    core.wait_state("down")
    core.wait(lambda: "cannot connect" in link.reason)
    fs.start()
    core.wait_state("up", 2)
    assert link.reason == ""


def test_everything_that_waits_fails_when_the_link_drops(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, core = connect()
    fs.on("api slow").silent()
    fs.on("bgapi slow").reply_raw(build_reply("+OK Job-UUID: x"))
    waiting = [gevent.spawn(link.bgapi, "slow"), gevent.spawn(link.run, "u-1", "playback", "x")]
    fs.commands.wait_for("sendmsg*")
    waiting.append(gevent.spawn(link.api, "slow"))
    fs.commands.wait_for("api slow")
    fs.cut()
    for one in waiting:
        with pytest.raises(EslDown):  # and not EslTimeout
            one.get(timeout=5)
    core.wait_state("up", 2)


def test_a_restarted_freeswitch_is_back_within_a_second(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, core = connect(backoff=Backoff(lambda: 0.99))
    old = fs.core_uuid
    fs.stop()
    core.wait_state("down", 2)  # tried, and refused
    fs.restart()
    core.wait_state("up", 2)
    assert [snapshot.core_uuid for snapshot in core.snapshots] == [old, fs.core_uuid]
    assert link.core_uuid == fs.core_uuid != old


def test_subscriptions_are_made_once_per_connection(fs: FakeFreeSwitch, connect: Connect) -> None:
    _, core = connect()
    for round_ in range(2, 5):
        fs.cut()
        core.wait_state("up", round_)
    assert len(fs.commands.matching("event *")) == 4
    fs.heartbeat()
    core.wait(lambda: len(core.events) == 1)


def test_fifty_losses_leave_nothing_behind(fs: FakeFreeSwitch, connect: Connect) -> None:
    """F11: no greenlet and no descriptor is left of the connections before."""
    _, core = connect()

    def left() -> tuple[int, int]:
        gc.collect()
        alive = [one for one in gc.get_objects() if isinstance(one, greenlet) and not one.dead]
        return len(alive), len(list(Path("/proc/self/fd").iterdir()))

    fs.wait_connected(2)
    before = left()
    for round_ in range(2, 52):
        fs.cut()
        core.wait_state("up", round_)
    fs.wait_connected(2)
    after = left()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 2
    assert len(fs.connections) == 2


def test_a_notice_is_the_reason(fs: FakeFreeSwitch, connect: Connect) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}|{extra[reason]}", filter=lambda r: "reason" in r["extra"])
    _, core = connect()
    fs.disconnect()
    core.wait_state("up", 2)
    logger.remove(sink)
    assert [str(line).strip() for line in lines] == ["event_socket_down|The system is being shut down."]


def test_losing_only_the_connection_for_commands_is_a_loss(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, core = connect()
    fs.connections[1].close()
    core.wait_state("up", 2)
    assert link.api("status").startswith("UP")


def test_what_was_received_is_delivered_before_the_next_round(fs: FakeFreeSwitch, connect: Connect, recording) -> None:
    _, core = connect()
    core.held = Event()
    for event in recording("dtmf").only("DTMF").events:
        fs.emit(event)
    fs.cut()
    core.wait_state("down")
    gevent.sleep(0.05)
    assert core.states[-1] == "down"
    core.held.set()
    core.wait_state("up", 2)
    assert [e.get("DTMF-Digit") for e in core.events] == ["2", "5", "#"]
    assert core.heard.index(core.events[-1]) < len(core.heard) - 1 - core.heard[::-1].index("connecting")


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20_000,
        b"Content-Length: -1\nContent-Type: text/event-plain\n\n",
        b"Content-Length: 16777217\nContent-Type: api/response\n\n",
        b"\x00\xff" * 200_000,
    ],
    ids=["http", "negative", "too long", "noise"],
)
def test_what_is_no_event_socket_is_left(fs: FakeFreeSwitch, connect: Connect, garbage: bytes) -> None:
    """F14."""
    link, core = connect()
    fs.write(garbage)
    core.wait_state("up", 2)
    assert link.counters.malformed == 1


@pytest.mark.parametrize(
    "odd",
    [
        build_frame("text/event-json", b"{not json"),
        build_frame("text/event-plain", b"no header here\n\n"),
        build_frame("text/event-xml", b"<event/>"),
        build_reply("+OK nobody asked"),
        b"\n\n\n",
    ],
)
def test_odd_frames_are_counted_and_left_out(fs: FakeFreeSwitch, connect: Connect, odd: bytes) -> None:
    link, core = connect()
    fs.write(odd)
    fs.heartbeat()
    core.wait(lambda: any(e.name == "HEARTBEAT" for e in core.events))
    assert core.states[-1] == "up"
    assert link.counters.drops == 0


# --- refusal
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["password", "access list", "permission"])
def test_a_refusal_is_one_line_a_minute(fs: FakeFreeSwitch, connect: Connect, logged: list[str], why: str) -> None:
    """F15."""
    now = [1000.0]
    server = EslServer("fs1", fs.host, fs.port, "wrong" if why == "password" else fs.password)
    if why == "access list":
        fs.greeting = "rude"
    elif why == "permission":
        fs.on("event *").reply("-ERR permission denied")
    link, core = connect(up=False, server=server, clock=lambda: now[0])
    core.wait_state("down", 5)
    assert [line for line in logged if "WARNING" in line] == ["WARNING event_socket_refused"]
    now[0] += 61
    core.wait_state("down", 8)
    assert len([line for line in logged if "WARNING" in line]) == 2
    assert not any("wrong" in line for line in logged)
    fs.greeting, fs.password = "normal", "wrong" if why == "password" else fs.password
    if why == "permission":
        fs.on("event *").reply("+OK")
    assert link.wait_up(5)


def test_a_refusal_is_not_hammered(fs: FakeFreeSwitch, connect: Connect) -> None:
    fs.password = "other"
    _, core = connect(up=False, backoff=None)
    core.wait_state("connecting")
    fs.password = "ClueCon"
    fs.greeting = "rude"
    core.wait_state("down")
    gevent.sleep(0.2)
    assert fs.accepted == 1


def test_the_password_is_shown_nowhere() -> None:
    assert "s3cret" not in repr(EslServer("fs1", password="s3cret"))


# --- silence
# ---------------------------------------------------------------------------------------------------------------


def test_a_stopped_freeswitch_is_noticed(fs: FakeFreeSwitch, connect: Connect) -> None:
    """F12, with its 10 s and 5 s made short."""
    _, core = connect(idle=0.1, command_timeout=0.15, connect_timeout=0.2)
    fs.frozen = True
    core.wait_state("down")
    fs.frozen = False
    core.wait_state("up", 2)
    assert fs.commands.matching("api status")


def test_an_idle_but_living_freeswitch_is_kept(fs: FakeFreeSwitch, connect: Connect) -> None:
    _, core = connect(idle=0.02)
    fs.commands.wait_for("api status", 5)
    assert "down" not in core.states


def test_replies_without_heartbeats_are_not_enough(fs: FakeFreeSwitch, connect: Connect) -> None:
    _, core = connect(idle=0.02, heartbeat_timeout=0.15)
    for _ in range(5):
        gevent.sleep(0.05)
        fs.heartbeat()
    assert "down" not in core.states
    core.wait_state("down")


# --- back-pressure
# ----------------------------------------------------------------------------------------------------------


def test_a_slow_consumer_stops_the_reading_not_the_commands(
    fs: FakeFreeSwitch, connect: Connect, recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F13: the queue stays bounded, nothing is lost, and commands go on."""
    monkeypatch.setattr(esl_connection, "QUEUE", 200_000)
    link, core = connect()
    core.held = Event()
    event = recording("dtmf").find("CHANNEL_ANSWER")
    frame = build_frame("text/event-plain", event.block)
    writer = gevent.spawn(fs.write, frame * 4000)
    with gevent.Timeout(5):
        while not link.counters.stalls:
            gevent.sleep(0.001)
    assert link._connections[0]._queued < 200_000 + 2 * esl_connection.RECEIVE
    assert not writer.ready()
    assert link.api("status").startswith("UP")
    assert link.state == "up"
    core.held.set()
    core.wait(lambda: len(core.events) == 4000, timeout=20)
    writer.get(timeout=5)


# --- the end
# ---------------------------------------------------------------------------------------------------------------


def test_stop_lets_commands_end_and_takes_no_new_ones(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, core = connect()
    rule = fs.on("api slow").reply("done").held()
    slow = gevent.spawn(link.api, "slow")
    fs.commands.wait_for("api slow")
    stopping = gevent.spawn(link.stop, 5)
    core.wait_state("draining")
    with pytest.raises(EslDown, match="draining"):
        link.api("status")
    rule.release()
    assert slow.get(timeout=5) == "done"
    stopping.get(timeout=5)
    assert core.states[-2:] == ["draining", "down"]
    assert len(fs.commands.matching("exit")) == 2
    fs.wait_gone()
    link.stop()


def test_stop_does_not_wait_for_ever(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, _ = connect()
    fs.on("api slow").held()
    slow = gevent.spawn(link.api, "slow")
    fs.commands.wait_for("api slow")
    begin = monotonic()
    link.stop(0.1)
    assert monotonic() - begin < 3
    with pytest.raises(EslDown):
        slow.get(timeout=5)


@pytest.mark.parametrize("greeting", ["silent", "rude", "close"])
def test_stop_in_the_middle_of_a_try(fs: FakeFreeSwitch, connect: Connect, greeting: Any) -> None:
    fs.greeting = greeting
    link, core = connect(up=False)
    core.wait_state("connecting")
    begin = monotonic()
    link.stop()
    assert monotonic() - begin < 1
    assert link.state == "down"
    fs.wait_gone()


def test_stop_while_the_consumer_blocks(fs: FakeFreeSwitch, connect: Connect) -> None:
    link, core = connect()
    core.held = Event()
    fs.heartbeat()
    gevent.sleep(0.02)
    fs.cut()
    core.wait_state("down")
    begin = monotonic()
    link.stop()
    assert monotonic() - begin < 3


def test_stop_before_start() -> None:
    EslLink(EslServer("fs1"), lambda: (), lambda *_: None).stop()
