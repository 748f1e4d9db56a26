"""FreeSWITCH servers as such: links in flows, channels that came or went while nobody listened, restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.jobs import Job
from orchestrator.core.switches.resync import AT_A_TIME
from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.loader import load_program
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.world import World

FLOW = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x}, fs2: {host: 10.0.0.8, password: x}}
flows:
  main:
    on: invite
    do:
      - subscribe: dtmf
        do: [log: '${event.leg} ${event.digit}']
      - relay: {to: registered, ring: 600s}
    on_end: [log: 'ended: ${call.end_reason ?? "?"}']
"""

CORE, LATER_CORE = "core-one", "core-two"


class Site(World):
    """A world with a flow, two phones and one call between them; `said` is what the flow has logged."""

    def __init__(self, tmp_path: Path, flow: str = FLOW) -> None:
        path = tmp_path / "site.flow.yaml"
        path.write_text(flow)
        program, warnings = load_program([path])
        assert warnings == []
        super().__init__(program, freeswitch={"fs1": "", "fs2": ""})
        self.said: list[str] = []
        self.engine.host.on_log = lambda run, effect: self.said.append(effect.text)
        self.on_job = lambda job: self.LATER
        self.alice = self.phone("alice@example.com", "10.0.0.2")
        self.bob = self.phone("bob@example.com", "10.0.0.3")
        self.bob.register()
        self.run()

    def call(self, answered: bool = False) -> PhoneCall:
        call = self.alice.invite("bob@example.com")
        self.run()
        if answered:
            self.bob.calls[-1].answer()
            self.run()
            assert call.state == "answered"
        return call

    def link(self, server: str, state: str, reason: str = "") -> None:
        self.engine.link_changed(server, state, reason, self.now)
        self.run()

    def snapshot(self, *uuids: str, server: str = "fs1", core: str = CORE) -> None:
        rows = [{"uuid": uuid, "direction": "inbound"} for uuid in uuids]
        self.engine.receive_snapshot(server, rows, self.now, core, self.now)
        self.run()

    def hear(self, name: str, uuid: str = "", server: str = "fs1", core: str = CORE, **headers: str) -> None:
        fields = {"Event-Name": name, "Core-UUID": core, **({"Unique-ID": uuid} if uuid else {})}
        fields |= {key if key.islower() else key.replace("_", "-"): value for key, value in headers.items()}
        event = EslEvent.json(json.dumps(fields))
        assert event is not None
        self.engine.receive_esl(server, event, self.now)
        self.run()

    def channel(self, call: PhoneCall, uuid: str = "chan-1", server: str = "fs1") -> str:
        fields = {"Call_Direction": "inbound", "variable_sip_call_id": call.call_id.decode()}
        self.hear("CHANNEL_CREATE", uuid, server, **fields)
        return uuid

    def asked(self) -> list[str]:
        return [job.effect.command for job in self.jobs]

    def answer(self, job: Job, call_id: str = "", core: str = CORE, **more: str) -> None:
        uuid = job.effect.command.split()[1]
        fields = {"Event-Name": "CHANNEL_DATA", "Core-UUID": core, "Unique-ID": uuid, "Call-Direction": "inbound"}
        text = json.dumps({**fields, **({"variable_sip_call_id": call_id} if call_id else {}), **more})
        self.engine.complete(job.id, {"ok": True, "text": text}, self.now)
        self.run()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# --- channels ---------------------------------------------------------------------------------------------------------


def test_a_channel_that_began_while_we_were_away_is_asked_about_and_then_known(site: Site) -> None:
    call = site.call()
    site.snapshot("chan-1")
    assert site.asked() == ["uuid_dump chan-1 json"]
    assert site.jobs[0].effect.server == "fs1"
    site.hear("DTMF", "chan-1", DTMF_Digit="7")
    assert site.said == [], "nothing says yet whose channel that is"
    site.answer(site.jobs[0], call.call_id.decode())
    site.hear("DTMF", "chan-1", DTMF_Digit="8")
    assert site.said == ["caller 8"]


def test_a_channel_we_know_is_not_asked_about(site: Site) -> None:
    site.channel(site.call())
    site.snapshot("chan-1")
    assert site.asked() == []


def test_a_channel_whose_birth_was_lost_is_asked_about(site: Site) -> None:
    """Its first event is a key, which names a channel and nothing else."""
    call = site.call()
    site.hear("DTMF", "chan-1", DTMF_Digit="7", Call_Direction="inbound")
    site.hear("DTMF", "chan-1", DTMF_Digit="8", Call_Direction="inbound")
    assert site.asked() == ["uuid_dump chan-1 json"] and site.said == []
    site.answer(site.jobs[0], call.call_id.decode())
    site.hear("DTMF", "chan-1", DTMF_Digit="9")
    assert site.said == ["caller 9"]


def test_an_event_that_came_before_the_list_leaves_no_channel_unexplained(site: Site) -> None:
    call = site.call()
    site.hear("DTMF", "chan-1", DTMF_Digit="7", Call_Direction="inbound")
    site.snapshot("chan-1")
    assert site.asked() == ["uuid_dump chan-1 json"]
    site.answer(site.jobs[0], call.call_id.decode())
    site.hear("DTMF", "chan-1", DTMF_Digit="8")
    assert site.said == ["caller 8"]


def test_only_some_questions_at_a_time(site: Site) -> None:
    """A thousand unknown channels must not stand in front of the commands of flows."""
    uuids = [f"chan-{number}" for number in range(1_000)]
    site.snapshot(*uuids)
    for number in range(len(uuids)):
        assert len(site.jobs) == min(number + AT_A_TIME, len(uuids))
        site.answer(site.jobs[number])
    assert site.asked() == [f"uuid_dump {uuid} json" for uuid in uuids]


def test_questions_end_with_the_link(site: Site) -> None:
    site.snapshot(*(f"chan-{number}" for number in range(20)))
    site.link("fs1", "down", "gone")
    for job in list(site.jobs):
        site.engine.complete(job.id, StepError("esl.down", "gone"), site.now)
    site.run()
    assert len(site.jobs) == AT_A_TIME
    site.snapshot("chan-30", "chan-31", "chan-32", "chan-33", "chan-34")
    assert len(site.jobs) == 2 * AT_A_TIME, "the next connection asks as many at a time again"


@pytest.mark.parametrize(
    "result",
    [
        {"ok": False, "text": "-ERR No such channel!\n"},
        {"ok": True, "text": "[]"},
        {"ok": True, "text": '{"Unique-ID": "another", "Core-UUID": "core-one"}'},
        StepError("esl.timeout", "no reply"),
    ],
    ids=["gone", "no object", "another channel", "timeout"],
)
def test_an_answer_that_explains_nothing_is_counted_and_the_next_one_asked(site: Site, result: Any) -> None:
    site.snapshot(*(f"chan-{number}" for number in range(AT_A_TIME + 1)))
    site.engine.complete(site.jobs[0].id, result, site.now)
    site.run()
    assert site.engine.counters["esl.channel.unexplained"] == 1
    assert len(site.jobs) == AT_A_TIME + 1


def test_an_answer_of_the_core_before_does_not_bring_it_back(site: Site) -> None:
    site.snapshot("chan-1")
    site.snapshot("chan-2", core=LATER_CORE)
    site.answer(site.jobs[0], core=CORE)
    assert site.engine.channels.core_uuid("fs1") == LATER_CORE
    channels = site.engine.channels._servers["fs1"].channels.values()
    assert [channel.uuid for channel in channels if not channel.destroyed] == ["chan-2"]


@pytest.mark.parametrize("uuid", ["a b", "${system(id)}", "x\ny", "'x'", "x,y", "{x}"])
def test_a_uuid_that_no_command_may_hold_is_left_alone(site: Site, uuid: str) -> None:
    site.snapshot(uuid, "chan-2")
    assert site.asked() == ["uuid_dump chan-2 json"]
    assert site.engine.counters["esl.channel.unaskable"] == 1


@pytest.mark.parametrize("uuid", ["Z4~jO8H2eK", "-Ab3..", "MTIz=@10.0.0.2", "a84b4c76e66710@pc33.example.com"])
def test_call_ids_of_phones_are_asked_about(site: Site, uuid: str) -> None:
    site.snapshot(uuid)
    assert site.asked() == [f"uuid_dump {uuid} json"]


# --- what was lost ----------------------------------------------------------------------------------------------------


def test_a_channel_missing_from_the_snapshot_ends_its_call(site: Site) -> None:
    call = site.call(answered=True)
    site.channel(call)
    site.run(1)
    site.snapshot()
    assert call.state == "ended" and site.bob.calls[0].state == "ended"
    assert site.said == ["ended: channel lost"]
    site.run(60)
    assert site.leftovers() == {"transactions": 0, "calls": 0, "runs": 0, "subscriptions": 0}


def test_a_snapshot_of_another_core_ends_the_calls_of_that_server_only(site: Site) -> None:
    here, there = site.call(answered=True), site.call(answered=True)
    site.snapshot(server="fs2", core="core-of-fs2")
    site.channel(here, "chan-1")
    fields = {"Call_Direction": "inbound", "variable_sip_call_id": there.call_id.decode()}
    site.hear("CHANNEL_CREATE", "chan-2", "fs2", core="core-of-fs2", **fields)
    site.snapshot("chan-1", core=LATER_CORE)
    assert (here.state, there.state) == ("ended", "answered")


def test_any_event_of_another_core_ends_its_calls(site: Site) -> None:
    """The Event Socket may be back before we have asked for anything."""
    call = site.call(answered=True)
    site.channel(call)
    site.hear("HEARTBEAT", core=LATER_CORE)
    assert call.state == "ended"
    assert site.engine.channels.lost == [], "taken out, so that it is not ended twice nor kept"
    assert site.said == ["ended: channel lost"]


def test_a_ringing_call_whose_channel_is_lost_ends_too(site: Site) -> None:
    call = site.call()
    site.channel(call)
    site.run(1)
    site.snapshot()
    assert call.state == "ended" and call.statuses[-1] == 480
    assert site.bob.calls[0].state == "ended", "the phone stops ringing"


# --- links in flows ---------------------------------------------------------------------------------------------------

LINKS = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x}, fs2: {host: 10.0.0.8, password: x}}
flows:
  any:
    on: fs.link
    do: [log: 'any ${event.server} ${event.state} ${event.reason ?? "-"}']
  down_only:
    on: {event: fs.link, where: {server: fs1, state: down}}
    do: [log: 'fs1 is down']
  in_a_call:
    on: invite
    do:
      - subscribe: fs.link
        where: event.state == 'up' and event.server.startsWith('fs')
        do: [log: 'handler ${event.server}']
      - wait: fs.link
        where: {server: fs2}
        for: 30s
        as: heard
        on_timeout: [reply: 480, stop: ]
      - first_of:
          - wait: fs.link
            where: {state: down}
            do: [reply: {code: 486, reason: '${heard.state} then ${event.state}'}]
          - after: 60s
            do: [reply: 480]
"""


def test_flows_hear_of_links_in_every_way_there_is(tmp_path: Path) -> None:
    site = Site(tmp_path, LINKS)
    call = site.call()
    site.link("fs2", "up")
    assert site.said == ["any fs2 up -", "handler fs2"]
    site.link("fs1", "down", "refused the password")
    assert site.said[2:] == ["any fs1 down refused the password", "fs1 is down"]
    assert call.statuses == [100, 486]


def test_an_outage_is_told_once_however_often_it_is_tried_again(tmp_path: Path) -> None:
    site = Site(tmp_path, LINKS)
    for state in ("connecting", "down", "connecting", "authenticating", "down", "connecting"):
        site.link("fs1", state, "no route")
    assert site.said == ["any fs1 down no route", "fs1 is down"]
    for state in ("authenticating", "syncing", "up"):
        site.link("fs1", state)
    site.link("fs1", "down", "closed")
    assert site.said[2:] == ["any fs1 up -", "any fs1 down closed", "fs1 is down"]
    assert site.engine.servers.states == {"fs1": "down"}


def test_the_first_start_of_a_server_that_is_there_tells_of_up_alone(tmp_path: Path) -> None:
    site = Site(tmp_path, LINKS)
    for state in ("connecting", "authenticating", "syncing", "up", "draining", "down"):
        site.link("fs1", state)
    assert [text for text in site.said if text.startswith("any")] == ["any fs1 up -", "any fs1 down -"]


# --- what is subscribed to --------------------------------------------------------------------------------------------


def test_a_flow_started_by_a_freeswitch_event_has_it_subscribed_to(tmp_path: Path) -> None:
    flow = "flowlang: 1\nflows:\n  beats:\n    on: {event: fs, where: {name: 'sofia::gateway_state'}}\n"
    site = Site(tmp_path, flow + "    do: [log: '${event.name}']\n")
    assert site.engine.usage.fs == {"sofia::gateway_state"}
    site.hear("CUSTOM", Event_Subclass="sofia::gateway_state")
    assert site.said == ["sofia::gateway_state"]


# --- choosing one -----------------------------------------------------------------------------------------------------


def beat(site: Site, server: str, sessions: int, most: int = 100) -> None:
    site.hear("HEARTBEAT", server=server, core=f"core-{server}", Session_Count=str(sessions), Max_Sessions=str(most))


def chosen(site: Site) -> str:
    return site.engine.servers.server_for("", None)


def test_the_first_one_where_nothing_is_known(site: Site) -> None:
    assert chosen(site) == "fs1"


def test_the_one_with_least_to_do_for_its_size(site: Site) -> None:
    beat(site, "fs1", 10)
    beat(site, "fs2", 12, most=1000)
    assert chosen(site) == "fs2"
    beat(site, "fs2", 200, most=1000)
    assert chosen(site) == "fs1"
    assert site.engine.servers.server_for("fs2", None) == "fs2", "unless it is named"


def test_one_that_is_down_only_where_none_is_up(site: Site) -> None:
    beat(site, "fs1", 1)
    beat(site, "fs2", 50)
    site.link("fs1", "draining")
    assert chosen(site) == "fs2"
    site.link("fs2", "down", "gone")
    assert chosen(site) == "fs1"
