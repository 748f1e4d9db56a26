"""REGISTER: who is bound how long, what is refused, and that nothing is promised before it is stored (RFC 3261
§10.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from scene import BOB, Scene

from orchestrator.errors import StoreError
from orchestrator.events.event import Event
from orchestrator.sip.location import Binding, Change
from orchestrator.sip.message import Response
from orchestrator.sip.registrar import RegisterPolicy
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.peer import Ask
from orchestrator.testing.world import PROXY

AOR = "bob@example.com"
DOMAIN = "sip:example.com"


class Desk:
    """A phone of bob that sends REGISTERs line by line, and the table they end up in."""

    def __init__(self, **settings: Any) -> None:
        self.scene = Scene(0, **settings)
        self.world = self.scene.world
        self.phone = self.world.peer("bob", "10.0.0.11")
        self.cseq = 0

    def register(self, *headers: str, call_id: str = "r1", cseq: int = 0, **more: Any) -> Response:
        self.cseq = cseq or self.cseq + 1
        more.setdefault("to", f"<{BOB}>")
        ask = self.phone.ask("REGISTER", DOMAIN, *headers, call_id=call_id, cseq=self.cseq, **more)
        return self.scene.do(ask).final

    @property
    def bindings(self) -> list[Binding]:
        return list(self.world.location.bindings(AOR, self.world.engine.wall))

    @property
    def contacts(self) -> list[str]:
        return [binding.uri for binding in self.bindings]

    def expiries(self, answer: Response) -> dict[str, int | None]:
        return {(contact.uri or b"").decode(): contact.expires for contact in answer.contacts()}


# --- how long ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contact", "header", "granted"),
    [
        (";expires=120", None, 120),
        ("", "Expires: 300", 300),
        (";expires=120", "Expires: 300", 120),  # the Contact's own goes first
        ("", None, 3600),
        (";expires=999999", None, 7200),
        (";expires=4294967295", None, 7200),
        ("", "Expires: soon", 3600),  # §10.2.1.1: unreadable means default
        (";expires=soon", "Expires: 300", 300),
        (";expires=60", None, 60),
    ],
)
def test_the_time_granted_is_in_the_answer_and_runs_from_then(contact: str, header: str | None, granted: int) -> None:
    desk = Desk()
    answer = desk.register(f"Contact: <sip:bob@10.0.0.11>{contact}", *([header] if header else []))
    assert answer.status == 200
    assert desk.expiries(answer) == {"sip:bob@10.0.0.11": granted}
    desk.scene.run(granted - 0.1)
    assert desk.contacts == ["sip:bob@10.0.0.11"]
    desk.scene.run(0.2)
    assert desk.contacts == []
    assert len(desk.world.location) == 0


@pytest.mark.parametrize("asked", [1, 59])
def test_a_time_too_brief_is_refused_with_the_shortest_we_take(asked: int) -> None:
    desk = Desk()
    answer = desk.register("Contact: <sip:a@10.0.0.11>;expires=3600", f"Contact: <sip:b@10.0.0.11>;expires={asked}")
    assert answer.status == 423
    assert answer.get(b"min-expires") == b"60"
    assert desk.contacts == [], "all or nothing"


def test_the_policy_decides_what_is_brief_and_what_is_long() -> None:
    desk = Desk(register=RegisterPolicy(min_expires=10, max_expires=30, default_expires=20, headers=(b"X-Zone: 1",)))
    answer = desk.register("Contact: <sip:a@10.0.0.11>", "Contact: <sip:b@10.0.0.11>;expires=40")
    assert sorted(desk.expiries(answer).values(), key=str) == [20, 30]
    assert answer.get(b"x-zone") == b"1"
    assert desk.register("Contact: <sip:a@10.0.0.11>;expires=9").status == 423


def test_a_refresh_starts_the_time_anew_and_the_answer_shows_what_is_left_of_the_others() -> None:
    desk = Desk()
    desk.register("Contact: <sip:a@10.0.0.11>;expires=100")
    desk.scene.run(40.0)
    answer = desk.register("Contact: <sip:b@10.0.0.11>;expires=100")
    assert desk.expiries(answer) == {"sip:a@10.0.0.11": 60, "sip:b@10.0.0.11": 100}
    desk.register("Contact: <sip:a@10.0.0.11>;expires=100")
    desk.scene.run(99.0)
    assert len(desk.contacts) == 2
    desk.scene.run(2.0)
    assert desk.contacts == []


# --- one by one and all at once ---------------------------------------------------------------------------------------


def test_without_a_contact_the_answer_lists_what_is_registered_and_nothing_changes() -> None:
    desk = Desk()
    desk.register("Contact: <sip:a@10.0.0.11>;expires=100")
    before = desk.bindings
    answer = desk.register(call_id="other")
    assert desk.expiries(answer) == {"sip:a@10.0.0.11": 100}
    assert desk.bindings == before


def test_a_contact_with_expires_0_goes_and_the_others_stay() -> None:
    desk = Desk()
    desk.register("Contact: <sip:a@10.0.0.11>, <sip:b@10.0.0.11>")
    answer = desk.register("Contact: <sip:a@10.0.0.11>;expires=0")
    assert list(desk.expiries(answer)) == ["sip:b@10.0.0.11"]
    assert desk.contacts == ["sip:b@10.0.0.11"]


def test_the_star_removes_everything_but_only_with_expires_0() -> None:
    desk = Desk()
    desk.register("Contact: <sip:a@10.0.0.11>, <sip:b@10.0.0.11>")
    before = desk.bindings
    for headers in (["Contact: *"], ["Contact: *", "Expires: 60"], ["Contact: *, <sip:c@10.0.0.11>", "Expires: 0"]):
        assert desk.register(*headers).status == 400
        assert desk.bindings == before
    answer = desk.register("Contact: *", "Expires: 0")
    assert answer.status == 200
    assert answer.contacts() == []
    assert desk.contacts == []


def test_contacts_are_rung_by_q_and_the_newest_first() -> None:
    desk = Desk()
    desk.register("Contact: <sip:low@10.0.0.11>;q=0.1")
    desk.scene.run(1.0)
    desk.register("Contact: <sip:old@10.0.0.11>")
    desk.scene.run(1.0)
    desk.register("Contact: <sip:new@10.0.0.11>;q=1.0")
    assert desk.contacts == ["sip:new@10.0.0.11", "sip:old@10.0.0.11", "sip:low@10.0.0.11"]


def test_a_phone_may_not_register_without_end() -> None:
    """S08: 600 contacts in one request, or eleven in eleven."""
    desk = Desk()
    bomb = ", ".join(f"<sip:u{number}@10.0.0.11>" for number in range(200))
    assert desk.register(f"Contact: {bomb}").status == 403
    assert desk.contacts == []
    for number in range(10):
        assert desk.register(f"Contact: <sip:u{number}@10.0.0.11>").status == 200
    assert desk.register("Contact: <sip:u10@10.0.0.11>").status == 403
    assert desk.register("Contact: <sip:u0@10.0.0.11>").status == 200, "a refresh is no new one"
    assert len(desk.contacts) == 10


# --- order (§10.3 step 7, S07) ----------------------------------------------------------------------------------------


def test_a_request_that_was_overtaken_is_refused_and_changes_nothing() -> None:
    desk = Desk()
    desk.register("Contact: <sip:a@10.0.0.11>;expires=100", cseq=5)
    before = desk.bindings
    for headers in (
        ["Contact: <sip:a@10.0.0.11>;expires=3600"],
        ["Contact: <sip:a@10.0.0.11>;expires=0"],
        ["Contact: *", "Expires: 0"],
    ):
        assert desk.register(*headers, cseq=4).status == 400
        assert desk.bindings == before
    assert desk.register("Contact: <sip:a@10.0.0.11>;expires=0", cseq=1, call_id="rebooted").status == 200


def test_a_repeated_register_is_answered_again_and_counts_once() -> None:
    desk = Desk()
    ask = desk.phone.register(AOR, expires=100)
    desk.scene.run(1.0)
    ask.again()
    desk.scene.run()
    assert ask.statuses == [200, 200]
    assert ask.responses[0].get(b"contact") == ask.responses[1].get(b"contact")
    assert len(desk.bindings) == 1


# --- what is kept of a phone ------------------------------------------------------------------------------------------


def test_a_binding_holds_what_the_phone_has_told() -> None:
    desk = Desk()
    desk.register(
        'Contact: "Bob" <sip:bob@10.0.0.11:5060;ob>;+sip.instance="<urn:uuid:0001>";reg-id=2;q=0.7',
        "User-Agent: Softphone 1 ü",
    )
    [binding] = desk.bindings
    assert (binding.aor, binding.contact, binding.q) == (AOR, b"sip:bob@10.0.0.11:5060;ob", 0.7)
    assert (binding.instance, binding.reg_id) == ("urn:uuid:0001", 2)
    assert (binding.user_agent, binding.transport) == ("Softphone 1 ü", "udp")
    assert (binding.call_id, binding.cseq, binding.registered_at) == (b"r1", 1, desk.world.engine.wall)
    assert (binding.received, binding.path) == (None, ())


@pytest.mark.parametrize("reg_id", ["", "=", "=x", "=-1", "=99999999999"])
def test_an_odd_reg_id_is_none(reg_id: str) -> None:
    desk = Desk()
    assert desk.register(f"Contact: <sip:bob@10.0.0.11>;reg-id{reg_id}").status in (200, 400)
    assert all(binding.reg_id is None for binding in desk.bindings)


def test_a_phone_that_comes_back_from_another_address_replaces_itself() -> None:
    desk = Desk()
    instance = ';+sip.instance="<urn:uuid:1>";reg-id=1'
    desk.register(f"Contact: <sip:bob@10.0.0.11:1000>{instance}")
    desk.register(f"Contact: <sip:bob@10.0.0.11:2000>{instance}", call_id="r2")
    assert desk.contacts == ["sip:bob@10.0.0.11:2000"]


def test_the_address_of_record_is_the_to_whatever_the_request_uri_and_the_port() -> None:
    desk = Desk()
    for to in (
        "<sip:bob@EXAMPLE.com>",
        "sip:bob@example.com:5060",
        "<sip:%62ob@example.com;x=y>",
        "<sip:bob@10.0.0.1>",
    ):
        desk.register(f"Contact: <sip:bob@10.0.0.11:{5000 + desk.cseq}>", to=to)
    assert len(desk.bindings) == 4


def test_names_that_only_look_alike_are_two() -> None:
    """RFC 4475 escnull: nothing ends at a NUL."""
    desk = Desk()
    desk.register("Contact: <sip:%00@10.0.0.11>, <sip:%00%00@10.0.0.11>", to="<sip:null-%00-null@example.com>")
    found = desk.world.location.bindings("null-\0-null@example.com", desk.world.engine.wall)
    assert len(found) == 2
    assert desk.world.location.bindings("null-", desk.world.engine.wall) == ()


# --- NAT and Path -----------------------------------------------------------------------------------------------------


def nat_register(desk: Desk, *headers: str, via: str = "192.168.1.7:5062") -> Response:
    """A REGISTER that comes from 10.0.0.11:41000 and says otherwise."""
    headers = ("Contact: <sip:bob@192.168.1.7:5062>", *headers)
    ask = desk.phone.ask("REGISTER", DOMAIN, *headers, to=f"<{BOB}>", call_id="n", send=False)
    ask.octets = ask.octets.replace(b"10.0.0.11:5060;branch", via.encode() + b";rport;branch", 1)
    desk.world.attach(("10.0.0.11", 41000), desk.phone.receive)
    desk.world.deliver(ask.octets, ("10.0.0.11", 41000), PROXY)
    desk.scene.run()
    return next(m for m in desk.phone.received if isinstance(m, Response) and m.cseq_method == b"REGISTER")


def test_a_phone_behind_nat_is_rung_where_it_was_seen() -> None:
    desk = Desk()
    answer = nat_register(desk)
    assert (answer.via.received, answer.via.rport) == (b"10.0.0.11", 41000)
    assert desk.bindings[0].received == ("10.0.0.11", 41000)
    desk.scene.call()
    invite = desk.phone.requests("INVITE")[0]
    assert invite.uri == b"sip:bob@192.168.1.7:5062", "it is still called by the name it gave itself"
    assert ("10.0.0.11", 41000) in [target for _, _, target, data in desk.world.sent if data.startswith(b"INVITE")]


def test_a_phone_that_is_where_it_says_is_rung_at_its_contact() -> None:
    desk = Desk()
    nat_register(desk, via="10.0.0.11:41000")
    assert desk.bindings[0].received is None


@pytest.mark.parametrize(
    "path",
    [
        ["Path: <sip:10.0.0.50;lr>", "Path: <sip:10.0.0.51;lr>"],
        ["Path: <sip:10.0.0.50;lr>, <sip:10.0.0.51;lr>"],
    ],
)
def test_a_phone_behind_other_proxies_is_reached_through_them(path: list[str]) -> None:
    """RFC 3327 §5.3: the Path values become the Route, in order, however they were put in lines."""
    desk = Desk()
    edge = desk.world.peer("edge", "10.0.0.50")
    answer = nat_register(desk, *path, "Supported: path, gruu")
    assert answer.status == 200
    assert [p for line in answer.get_all(b"path") for p in line.replace(b" ", b"").split(b",")] == [
        b"<sip:10.0.0.50;lr>",
        b"<sip:10.0.0.51;lr>",
    ]
    desk.scene.call()
    [invite] = edge.requests()
    assert [route.uri for route in invite.routes()] == [b"sip:10.0.0.50;lr", b"sip:10.0.0.51;lr"]
    assert invite.uri == b"sip:bob@192.168.1.7:5062"


def test_a_path_is_not_told_to_those_who_do_not_know_it() -> None:
    desk = Desk()
    assert nat_register(desk, "Path: <sip:10.0.0.50;lr>").get(b"path") is None


@pytest.mark.parametrize("path", ["nonsense", "<sip:10.0.0.50;lr>,", "<sip:10.0.0.50:0>"])
def test_a_path_nobody_could_follow_is_refused(path: str) -> None:
    desk = Desk()
    assert nat_register(desk, f"Path: {path}").status == 400
    assert desk.contacts == []


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Contact: <nonsense>", 400),
        ("Contact: sip:bob@10.0.0.11?Route=%3Csip:x%3E", 400),  # RFC 4475 regbadct
        ("Contact: <sip:bob@10.0.0.11:0>", 400),
        ("Contact: <sip:bob@10.0.0.11>, ", 400),
        ("Require: else, nothing-we-know, gruu", 420),
        ("Require: path", 200),
    ],
)
def test_what_we_cannot_serve_is_refused_and_changes_nothing(header: str, status: int) -> None:
    desk = Desk()
    answer = desk.register(*([] if header.startswith("Contact") else ["Contact: <sip:bob@10.0.0.11>"]), header)
    assert answer.status == status
    assert len(desk.bindings) == (status == 200)
    if status == 420:
        assert answer.get(b"unsupported") == b"else, nothing-we-know"


def test_a_contact_with_escaped_headers_is_kept_and_never_becomes_a_route() -> None:
    """RFC 4475 regescrt, S18."""
    desk = Desk()
    answer = desk.register("Contact: <sip:bob@10.0.0.11?Route=%3Csip:203.0.113.7%3E>")
    assert list(desk.expiries(answer)) == ["sip:bob@10.0.0.11?Route=%3Csip:203.0.113.7%3E"]
    desk.scene.call()
    [invite] = desk.phone.requests("INVITE")
    assert invite.uri == b"sip:bob@10.0.0.11"
    assert invite.routes() == []


# --- nothing is promised that is not stored (F16) ---------------------------------------------------------------------


class FailingStore(MemoryStore):
    """Fails while told to; notes what the proxy had sent when it was asked to write."""

    failing = False

    def __init__(self) -> None:
        super().__init__()
        self.on_write: Any = lambda: None

    def write(self, changes: Sequence[Change]) -> None:
        self.on_write()
        if self.failing:
            raise StoreError("disk full")
        super().write(changes)


def heard_events(desk: Desk) -> list[Event]:
    events: list[Event] = []
    for name in ("registered", "unregistered"):
        desk.world.engine.bus.subscribe(name, lambda event, _: events.append(event))
    return events


@pytest.mark.parametrize(
    "headers",
    [
        ["Contact: <sip:a@10.0.0.11>;expires=200"],
        ["Contact: <sip:new@10.0.0.11>"],
        ["Contact: <sip:a@10.0.0.11>;expires=0"],
        ["Contact: *", "Expires: 0"],
    ],
)
def test_a_store_that_fails_is_a_503_and_the_table_stays_as_it_was(headers: list[str]) -> None:
    store = FailingStore()
    desk = Desk(store=store)
    desk.register("Contact: <sip:a@10.0.0.11>;expires=100")
    before = desk.bindings
    events = heard_events(desk)
    store.failing = True
    answer = desk.register(*headers)
    assert answer.status == 503
    assert int(answer.get(b"retry-after") or b"0") > 0
    assert answer.get(b"contact") is None
    assert desk.bindings == before
    assert events == []
    store.failing = False
    assert desk.register(*headers).status == 200
    assert events


def test_calls_go_on_from_memory_while_the_store_fails() -> None:
    store = FailingStore()
    scene = Scene(1, store=store)
    store.failing = True
    scene.call()
    assert scene.phones[0].heard == ["INVITE"]


def test_the_store_has_the_binding_before_the_phone_has_its_200() -> None:
    store = FailingStore()
    desk = Desk(store=store)
    sent: list[int] = []
    store.on_write = lambda: sent.append(len(desk.world.engine.datagrams) + len(desk.world.sent))
    desk.register("Contact: <sip:a@10.0.0.11>")
    assert sent == [1], "the REGISTER itself and nothing else"


def test_the_event_comes_behind_the_200() -> None:
    desk = Desk()
    order: list[bytes] = []
    desk.world.engine.bus.subscribe(
        "registered", lambda event, _: order.append(desk.world.engine.datagrams[-1][0][:11])
    )
    desk.register("Contact: <sip:a@10.0.0.11>")
    assert order == [b"SIP/2.0 200"]


def test_each_change_is_told_once() -> None:
    desk = Desk()
    events = heard_events(desk)

    def told() -> list[tuple[str, str, Any]]:
        found = [
            (e.name, e.attributes["contact"], e.attributes.get("is_new", e.attributes.get("reason"))) for e in events
        ]
        events.clear()
        return found

    desk.register("Contact: <sip:a@10.0.0.11;ob>;expires=100")
    assert told() == [("registered", "sip:a@10.0.0.11", True)]
    desk.register("Contact: <sip:a@10.0.0.11;ob>;expires=100")
    assert told() == [("registered", "sip:a@10.0.0.11", False)]
    desk.register("Contact: <sip:a@10.0.0.11;ob>;expires=0", "Contact: <sip:b@10.0.0.11>;expires=100")
    assert sorted(told()) == [
        ("registered", "sip:b@10.0.0.11", True),
        ("unregistered", "sip:a@10.0.0.11;ob", "removed"),
    ]
    desk.scene.run(101.0)
    assert told() == [("unregistered", "sip:b@10.0.0.11", "expired")]
    desk.register("Contact: *", "Expires: 0")
    assert told() == []


def test_the_event_says_who_came_from_where() -> None:
    desk = Desk()
    events = heard_events(desk)
    push = ";pn-provider=apns;pn-prid=token;pn-param=app"
    desk.register(f"Contact: <sip:bob@10.0.0.11{push}>;expires=600", "User-Agent: App")
    [event] = events
    assert event.attributes == {
        "aor": AOR,
        "contact": "sip:bob@10.0.0.11",
        "uri": f"sip:bob@10.0.0.11{push}",
        "expires": 600,
        "user_agent": "App",
        "source_ip": "10.0.0.11",
        "path": None,
        "mobile": True,
        "is_new": True,
        "instance": None,
    }


def test_a_register_is_told_apart_by_its_domain() -> None:
    desk = Desk()
    ask: Ask = desk.phone.ask("REGISTER", "sip:elsewhere.example.net", "Contact: <sip:bob@10.0.0.11>")
    assert desk.scene.do(ask).statuses == [403]
    assert desk.register("Contact: <sip:bob@10.0.0.11>", to="<sip:bob@elsewhere.example.net>").status == 404
    assert len(desk.world.location) == 0


# --- as configured ----------------------------------------------------------------------------------------------------


def test_a_short_time_is_raised_where_that_is_configured() -> None:
    desk = Desk(register=RegisterPolicy(raise_short=True))
    answer = desk.register("Contact: <sip:bob@10.0.0.11>;expires=5")
    assert answer.status == 200
    assert desk.expiries(answer) == {"sip:bob@10.0.0.11": 60}
    assert desk.register("Contact: <sip:bob@10.0.0.11>;expires=0").status == 200
    assert desk.contacts == []


@pytest.mark.parametrize("most", [1, 2])
def test_a_phone_too_many_takes_the_place_of_the_oldest(most: int) -> None:
    desk = Desk(register=RegisterPolicy(replace=True, max_contacts=most))
    for number in range(1, 4):
        assert desk.register(f"Contact: <sip:bob@10.0.0.{number}>", call_id=f"p{number}").status == 200
        desk.scene.run(1)
    assert sorted(desk.contacts) == [f"sip:bob@10.0.0.{number}" for number in range(4 - most, 4)]


@pytest.mark.parametrize(
    ("via", "contact", "behind"),
    [
        ("10.0.0.11:5060", "10.0.0.11:5060", False),
        ("10.0.0.11:5060;rport", "10.0.0.11:5060", False),
        ("192.168.1.5:5060;rport", "192.168.1.5:5060", True),  # behind NAT, and says so
        ("10.0.0.11:4000;rport", "10.0.0.11:4000", True),  # STUN behind a symmetric NAT: another port
        ("10.0.0.11:4000", "10.0.0.11:4000", False),  # sends from another port than it listens at
        ("10.0.0.11:5060", "10.0.0.99:5060", False),  # another machine serves its calls
    ],
)
def test_where_a_phone_is_reached_is_decided_as_for_dialogs(via: str, contact: str, behind: bool) -> None:
    desk = Desk()
    octets = desk.phone.ask("REGISTER", DOMAIN, f"Contact: <sip:bob@{contact}>", to=f"<{BOB}>", send=False).octets
    desk.phone.send(octets.replace(b"UDP 10.0.0.11:5060", b"UDP " + via.encode(), 1))
    desk.scene.run()
    [binding] = desk.bindings
    assert binding.received == (("10.0.0.11", 5060) if behind else None)
