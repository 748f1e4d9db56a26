"""Whether FreeSWITCH servers take our calls: OPTIONS to their SIP sides, what their access lists and calls show."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from mediakit import Switch

from orchestrator.core.settings import ServerTimes
from orchestrator.esl.profiles import ASK, Profile, profiles_of
from orchestrator.flow.loader import load_program
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.world import World

FLOW = """flowlang: 1
freeswitch: {fs1: {host: 10.0.0.9, password: x}, fs2: {host: 10.0.0.8, password: x}}
flows:
  through:
    on: invite
    when: call.target.user != 'ivr'
    do: [relay: {to: registered, via: fs1, ring: 60s}]
    on_end: [log: 'ended: ${call.end_reason ?? "?"}']
  held:
    on: invite
    do:
      - answer:
        on_error: [log: '${error.type} ${error.message}', reply: 503, stop: ]
      - log: 'held by ${call.fs.server ?? "?"}'
      - collect: {max: 4, timeout: 600s}
"""
SERVERS = {"fs1": "sip:10.0.0.9:5080", "fs2": "sip:10.0.0.8:5080"}
PROFILES = """<configuration name="sofia.conf"><profiles>
<profile name="internal"><gateways><gateway name="x"><param name="sip-port" value="1"></param></gateway></gateways>
<settings><param name="sip-port" value="5060"></param><param name="auth-calls" value="true"></param></settings>
</profile>
<profile name="orchestrator"><settings>
<param name="sip-port" value="5080"></param>{params}
</settings></profile></profiles></configuration>
"""
LISTED = '<param name="apply-inbound-acl" value="trusted"></param>'


def text(output: str) -> Mapping[str, Any]:
    return {"ok": not output.startswith("-"), "text": output}


class Site:
    """A world with two servers, of which `only` are configured, probed every 5 s."""

    def __init__(self, tmp_path: Path, *only: str, probe: float = 5.0, **uris: str) -> None:
        path = tmp_path / "site.flow.yaml"
        path.write_text(FLOW)
        program, _ = load_program([path])
        known = {name: uris.get(name, uri) for name, uri in SERVERS.items() if name in (only or SERVERS)}
        self.world = World(
            program,
            freeswitch=known,
            server_times={name: ServerTimes(30.0, probe) for name in known},
            trust=(ip_network("10.0.0.8/31"),),
        )
        self.news: list[tuple[str, str]] = []
        self.said: list[str] = []
        engine = self.world.engine
        engine.on_news = lambda event, facts: self.news.append(
            (event, facts.get("server", ""), facts.get("reason", ""))
        )
        engine.host.on_log = lambda run, effect: self.said.append(effect.text)
        self.switches = {
            name: Switch.in_world(self.world, name, (f"10.0.0.{host}", 5080)) for name, host in (("fs1", 9), ("fs2", 8))
        }
        for switch in self.switches.values():
            switch.world = self.world
            self.lists(switch, LISTED, trusted="true")
        self.world.on_job = lambda job: self.switches[job.effect.server].perform(job)
        self.alice = self.world.phone("alice@example.com", "10.0.0.2")
        self.bob = self.world.phone("bob@example.com", "10.0.0.3")
        self.bob.register()
        self.run()
        for name in known:
            self.world.engine.link_changed(name, "up", "", self.world.now)
        self.run(6)

    @property
    def fs1(self) -> Switch:
        return self.switches["fs1"]

    def lists(self, switch: Switch, params: str, **answers: str) -> None:
        """Its profile has these parameters, and its access lists answer that to every address."""
        switch.answers = (
            {ASK: text(f"api {ASK}")} if params is None else {f"{ASK}": text(PROFILES.format(params=params))}
        )
        switch.answers |= {f"acl 10.0.0.1 {name}": text(answer) for name, answer in answers.items()}

    def run(self, seconds: float = 0.0) -> None:
        self.world.run(seconds)

    def call(self, to: str = "bob@example.com", seconds: float = 0.1) -> PhoneCall:
        call = self.alice.invite(to)
        self.run(seconds)
        return call

    def complaint(self, name: str = "fs1") -> str:
        return self.world.engine.servers.complaint(name)

    def told(self) -> list[tuple[str, str]]:
        return [
            (event.removeprefix("freeswitch_"), server) for event, server, _ in self.news if event.startswith("free")
        ]


# --- its SIP address --------------------------------------------------------------------------------------------------


def test_one_that_answers_and_allows_us_is_ready(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert (site.complaint("fs1"), site.complaint("fs2"), site.told()) == ("", "", [])


def test_it_is_not_ready_before_it_has_been_heard() -> None:
    world = World(freeswitch=SERVERS, server_times={"fs1": ServerTimes(30.0, 5.0)})
    assert world.engine.servers.complaint("fs1") == "its SIP side has not answered OPTIONS yet"
    assert world.engine.servers.complaint("fs2") == "", "probe: 0s"


def test_a_wrong_sip_address_is_not_ready(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1", fs1="sip:10.0.0.9:5999")
    assert site.complaint() == "no answer to OPTIONS"
    assert site.told() == [("takes_no_calls", "fs1")]
    call = site.call()
    assert call.statuses[-1] == 503, "at once"
    site.call("ivr@example.com")
    assert site.said[-1] == "esl.down media: FreeSWITCH fs1 takes no calls: no answer to OPTIONS"


@pytest.mark.parametrize("status", [403, 407, 503])
def test_another_server_at_its_address_that_refuses_options(tmp_path: Path, status: int) -> None:
    site = Site(tmp_path, "fs1", fs1="sip:10.0.0.7:5080")
    other = site.world.peer("other", "10.0.0.7", 5080)

    def hears(data: bytes, source: Any) -> None:
        other.receive(data, source)
        other.answer(other.received[-1], status)

    site.world.attach(other.address, hears)
    site.run(6)
    assert site.complaint().startswith(f"it answers OPTIONS with {status}")


def test_a_server_that_is_not_probed_is_judged_by_its_link(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1", probe=0.0)
    site.fs1.alive = False
    site.run(60)
    assert site.complaint() == ""


# --- stalled ----------------------------------------------------------------------------------------------------------


def test_a_stalled_server_is_passed_over_within_nine_seconds(tmp_path: Path) -> None:
    """SIGSTOP: its link stays, nothing is answered. A probe every 5 s, two of them unanswered for 2 s each."""
    site = Site(tmp_path)
    site.fs1.alive = False
    site.run(9.1)
    assert site.told() == [("takes_no_calls", "fs1")]
    assert site.complaint() == "no answer to OPTIONS"
    call = site.call("ivr@example.com")
    assert (call.state, site.said) == ("answered", ["held by fs2"])
    site.fs1.alive = True
    site.run(5.1)
    assert site.complaint() == "" and site.told()[-1] == ("takes_calls", "fs1")


def test_a_call_that_it_leaves_alone_has_it_probed_at_once(tmp_path: Path) -> None:
    """With a long interval the call is the first to notice: 10 s, and two probes of 2 s."""
    site = Site(tmp_path, "fs1", probe=600.0)
    site.fs1.alive = False
    call = site.call(seconds=10.1)
    assert call.statuses[-1] == 504
    site.run(4.1)
    assert site.complaint() == "no answer to OPTIONS"


# --- only its Event Socket is lost ------------------------------------------------------------------------------------


def answered(site: Site, to: str = "bob@example.com") -> PhoneCall:
    call = site.call(to)
    if to.startswith("bob"):
        site.bob.calls[-1].answer()
        site.run(1)
    assert call.state == "answered"
    return call


def test_calls_go_on_while_its_sip_side_answers(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1")
    call = answered(site)
    site.fs1.drop_link()
    site.run(200)
    assert call.state == "answered"
    call.hangup()
    site.run(1)
    assert site.bob.calls[0].state == "ended", "FreeSWITCH passes the BYE on"
    byes = [data for _, source, _, data in site.world.sent if data.startswith(b"BYE ") and source[0] == "10.0.0.1"]
    assert len(byes) == 2, "one on each side of FreeSWITCH"


def test_a_flow_that_waits_for_its_commands_ends_all_the_same(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1")
    call = answered(site, "ivr@example.com")
    site.fs1.drop_link()
    site.run(30.1)
    assert call.state == "ended"


def test_calls_end_when_its_sip_side_dies_later(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1")
    call = answered(site)
    site.fs1.drop_link()
    site.run(100)
    site.fs1.kill()
    site.run(9 + 30)
    assert call.state == "ended" and site.said == ["ended: FreeSWITCH fs1 is down"]


@pytest.mark.parametrize("link_after", [0.0, 15.0])
def test_calls_of_a_dead_server_end_after_the_bound(tmp_path: Path, link_after: float) -> None:
    """Killed, and stopped (SIGSTOP), which the link notices after silence: 10 s and timeout: 5 s."""
    site = Site(tmp_path, "fs1")
    call = answered(site)
    site.fs1.kill(link_after)
    site.run(link_after + 29.9)
    assert call.state == "answered"
    site.run(0.2)
    assert call.state == "ended"


# --- its access lists -------------------------------------------------------------------------------------------------


WRONG = 'calls from 10.0.0.1 are not in apply-inbound-acl "trusted" of its profile "orchestrator", which refuses them'


def test_a_wrong_access_list_is_not_ready_from_the_start(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1")
    site.fs1.drop_link()
    site.lists(site.fs1, LISTED, trusted="false")
    site.fs1.raise_link()
    site.run(6)
    assert site.complaint() == WRONG
    assert site.told() == [("takes_no_calls", "fs1")]
    site.lists(site.fs1, LISTED, trusted="true")  # reloadacl
    site.run(5.1)
    assert site.complaint() == "" and site.told()[-1] == ("takes_calls", "fs1")


def test_one_of_several_lists_is_enough(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1")
    more = LISTED + '<param name="apply-inbound-acl" value="second"></param>'
    site.lists(site.fs1, more, trusted="false", second="true")
    site.world.engine.link_changed("fs1", "down", "", site.world.now)
    site.world.engine.link_changed("fs1", "up", "", site.world.now)
    site.run(1)
    assert site.complaint() == ""


def test_a_lost_link_is_no_sign_that_it_takes_calls_again(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1")
    site.lists(site.fs1, LISTED, trusted="false")
    site.fs1.refuses = 403
    site.call()
    site.fs1.drop_link()
    site.run(20)
    assert site.complaint() == WRONG and site.told() == [("takes_no_calls", "fs1")]


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_refused_invite_has_the_lists_looked_at(tmp_path: Path, status: int) -> None:
    site = Site(tmp_path)
    site.lists(site.fs1, LISTED, trusted="false")
    site.fs1.refuses = status
    call = site.call()
    assert call.statuses[-1] == status
    assert site.complaint() == WRONG
    call = site.call("ivr@example.com")
    assert site.said[-1] == "held by fs2", "it is passed over"


def test_a_number_that_the_dialplan_refuses_says_nothing_about_us(tmp_path: Path) -> None:
    """403 for a number that FreeSWITCH does not call: the list allows us."""
    site = Site(tmp_path, "fs1")
    site.fs1.refuses = 403
    site.call()
    site.run(1)
    assert site.complaint() == "" and site.told() == []


@pytest.mark.parametrize("known", [False, True])
def test_where_it_cannot_be_asked_the_invite_counts_until_it_takes_one(tmp_path: Path, known: bool) -> None:
    """A directory user without the right to xml_locate, or two profiles at one port."""
    site = Site(tmp_path, "fs1")
    site.lists(site.fs1, "", trusted="true")
    twice = PROFILES.format(params=LISTED).replace("5060", "5080")
    site.fs1.answers[ASK] = text(twice if known else "-ERR xml_locate Command not found!\n")
    site.fs1.refuses = 403
    site.call()
    site.run(1)
    assert site.complaint() == "it answers our INVITE with 403 Forbidden"
    site.run(20)
    assert site.complaint() == "it answers our INVITE with 403 Forbidden", "OPTIONS says nothing about it"
    site.fs1.refuses = 0
    assert site.call().statuses[-1] == 180, "the only one there is: it is tried"
    site.run(6)
    assert site.complaint() == "" and site.told()[-1] == ("takes_calls", "fs1")


def test_it_is_tried_again_after_a_minute(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.fs1.answers[ASK] = text("-ERR no reply\n")
    site.fs1.refuses = 403
    site.call()
    site.run(59)
    assert site.complaint() != ""
    site.run(1.1)
    assert site.complaint() == ""


def test_a_refusal_of_the_called_phone_says_nothing_about_freeswitch(tmp_path: Path) -> None:
    site = Site(tmp_path, "fs1")
    site.fs1.answers[ASK] = text("-ERR no reply\n")
    call = site.call()
    site.bob.calls[0].reject(403)
    site.run(1)
    assert call.statuses[-1] == 403 and site.complaint() == ""


# --- sofia.conf -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "profile"),
    [
        ("", Profile("orchestrator", 5080)),
        (LISTED, Profile("orchestrator", 5080, ("trusted",))),
        (LISTED + LISTED.replace("trusted", "10.0.0.0/8"), Profile("orchestrator", 5080, ("trusted", "10.0.0.0/8"))),
        ('<param name="auth-calls" value="yes"/>', Profile("orchestrator", 5080, challenges=True)),
        (LISTED.replace("trusted", "trusted:inside"), Profile("orchestrator", 5080, ("trusted",))),
        (LISTED.replace("trusted", "a:in:out"), Profile("orchestrator", 5080, ("a",), certain=False)),
        (LISTED.replace("trusted", "a; shutdown"), Profile("orchestrator", 5080, ("a; shutdown",), certain=False)),
        ('<param name="accept-blind-auth" value="true"/>', Profile("orchestrator", 5080, certain=False)),
    ],
)
def test_profiles_are_read_as_freeswitch_writes_them(params: str, profile: Profile) -> None:
    internal, found = profiles_of(PROFILES.format(params=params))
    assert found == profile
    assert internal == Profile("internal", 5060, challenges=True), "its gateways are something else"


def test_anything_else_is_no_profile() -> None:
    assert profiles_of("-ERR no such command\n") == [] == profiles_of("")
