"""From records to servers: RFC 3263 §4.1 and §4.2, the order of RFC 2782, TTLs, broken and hostile zones."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from orchestrator.sip.locate import (
    LONGEST,
    MISSED_LASTS,
    MOST_CANDIDATES,
    UNSURE_LASTS,
    Answer,
    Candidate,
    Found,
    Goal,
    Naptr,
    Question,
    Srv,
    candidates,
    in_order,
    survey,
)
from orchestrator.sip.points import DEFAULT_PORTS

Zone = dict[tuple[str, str], Answer | None]
OURS = ("udp", "tcp", "tls")

NAPTR = Answer(
    (
        Naptr(90, 50, "s", "SIP+D2U", "_sip._udp.example.com"),
        Naptr(50, 50, "s", "SIPS+D2T", "_sips._tcp.example.com"),
        Naptr(90, 10, "S", "SIP+D2T", "_sip._tcp.example.com"),
        Naptr(10, 10, "s", "E2U+sip", "_sip._udp.wrong.example"),
        Naptr(10, 20, "s", "SIP+D2S", "_sip._sctp.example.com"),
        Naptr(10, 30, "a", "SIP+D2U", "flag.example.com"),
    ),
    300.0,
)
ZONE: Zone = {
    ("example.com", "NAPTR"): NAPTR,
    ("_sips._tcp.example.com", "SRV"): Answer((Srv(0, 1, 5061, "tls.example.com"),), 200.0),
    ("_sip._tcp.example.com", "SRV"): Answer((Srv(0, 1, 5070, "one.example.com"),), 200.0),
    ("_sip._udp.example.com", "SRV"): Answer(
        (Srv(2, 1, 5060, "two.example.com"), Srv(1, 1, 5060, "one.example.com")), 200.0
    ),
    ("one.example.com", "A"): Answer(("192.0.2.1",), 100.0),
    ("two.example.com", "A"): Answer(("192.0.2.2", "192.0.2.3"), 100.0),
    ("two.example.com", "AAAA"): Answer(("2001:db8::2",), 100.0),
    ("tls.example.com", "A"): Answer(("192.0.2.9",), 100.0),
    ("example.com", "A"): Answer(("192.0.2.99",), 50.0),
    ("bare.example", "A"): Answer(("198.51.100.1",), 60.0),
}
NONE = Answer((), 900.0)
"""A name without records, as the SOA of the zone says how long."""


def look(goal: Goal, zone: Zone = ZONE) -> tuple[Found, list[Question]]:
    """What is found in a zone, and what was asked."""
    steps, asked = survey(goal), []
    questions = next(steps)
    while True:
        asked += questions
        try:
            questions = steps.send({question: zone.get(tuple(question), NONE) for question in questions})
        except StopIteration as end:
            return end.value, asked


def goal(name: str = "example.com", **more: object) -> Goal:
    return Goal(name, **{"transports": OURS, "kinds": ("A", "AAAA"), **more})  # type: ignore[arg-type]


def places(wanted: Goal, zone: Zone = ZONE, port: int = 0, otherwise: str = "") -> list[tuple[str, str, int]]:
    found = look(wanted, zone)[0]
    ports = dict.fromkeys(OURS, port) if port else DEFAULT_PORTS
    return [tuple(each) for each in candidates(wanted, found, lambda most: 0, lambda order: order, ports, otherwise)]


def test_naptr_says_the_transports_in_order_and_srv_the_hosts() -> None:
    """Order before preference; services of others, flags but "s" and transports that we lack count for nothing."""
    assert places(goal()) == [
        ("tls", "192.0.2.9", 5061),
        ("tcp", "192.0.2.1", 5070),
        ("udp", "192.0.2.1", 5060),
        ("udp", "192.0.2.2", 5060),
        ("udp", "192.0.2.3", 5060),
        ("udp", "2001:db8::2", 5060),
    ]
    assert [transport for transport, _, _ in places(goal(transports=("udp",), kinds=("A",)))] == ["udp"] * 3


@pytest.mark.parametrize(
    ("wanted", "port", "first"),
    [
        (goal(transport="tcp"), 0, ("tcp", "192.0.2.1", 5070)),  # §4.2: the transport is known, its SRV is asked for
        (goal(secure=True, transport="tls"), 0, ("tls", "192.0.2.9", 5061)),
        (goal(addressed=True), 5099, ("udp", "192.0.2.99", 5099)),  # a port: no SRV, and UDP (§4.1)
        (goal(addressed=True, transport="tls", secure=True), 5099, ("tls", "192.0.2.99", 5099)),
        (goal("bare.example"), 0, ("udp", "198.51.100.1", 5060)),  # neither NAPTR nor SRV
        (goal("bare.example", transport="tls", secure=True), 0, ("tls", "198.51.100.1", 5061)),
        (goal("bare.example", transports=("tcp", "tls")), 0, ("tcp", "198.51.100.1", 5060)),
    ],
)
def test_ports_and_transports_of_the_uri(wanted: Goal, port: int, first: tuple[str, str, int]) -> None:
    assert places(wanted, port=port)[0] == first


def test_a_transport_that_is_known_to_lead_there_is_kept() -> None:
    assert places(goal(addressed=True), port=5080, otherwise="tcp") == [("tcp", "192.0.2.99", 5080)]
    assert places(goal("bare.example"), otherwise="ws")[0][0] == "udp", "a browser's connection is no transport of ours"


def test_without_naptr_the_srv_of_all_our_transports_are_asked_for_at_once() -> None:
    zone = {key: value for key, value in ZONE.items() if key[1] != "NAPTR"}
    found, asked = look(goal(), zone)
    assert [service.transport for service in found.services] == ["udp", "tcp", "tls"]
    assert asked[:6] == [
        Question("example.com", "NAPTR"),
        *(Question(f"{prefix}.example.com", "SRV") for prefix in ("_sip._udp", "_sip._tcp", "_sips._tcp")),
        Question("example.com", "A"),
        Question("example.com", "AAAA"),
    ]


def test_naptr_for_transports_that_we_lack_is_none_at_all() -> None:
    zone: Zone = {**ZONE, ("example.com", "NAPTR"): Answer(NAPTR.records[1:2], 300.0)}
    assert places(goal(transports=("udp",)), zone)[0] == ("udp", "192.0.2.1", 5060)


def test_a_service_that_is_declared_absent_is_not_looked_for_elsewhere() -> None:
    """RFC 2782: the target "." means that the service is decidedly not available."""
    absent = Answer((Srv(0, 0, 0, ""),), 100.0)
    zone: Zone = {("shut.example", "A"): Answer(("192.0.2.1",), 60.0), ("_sip._udp.shut.example", "SRV"): absent}
    assert places(goal("shut.example", transport="udp"), zone) == []


def test_a_domain_may_name_itself_as_its_server() -> None:
    zone: Zone = {
        ("self.example", "A"): Answer(("192.0.2.1",), 60.0),
        ("_sip._udp.self.example", "SRV"): Answer((Srv(0, 0, 5070, "self.example"),), 100.0),
    }
    assert places(goal("self.example"), zone) == [("udp", "192.0.2.1", 5070)]


def test_a_name_without_a_dot_has_no_services() -> None:
    asked = look(goal("freeswitch"))[1]
    assert {question.kind for question in asked} == {"A", "AAAA"}


def test_what_is_found_holds_as_long_as_the_record_that_goes_first() -> None:
    assert look(goal())[0].ttl == 100.0
    long = {("long.example", "A"): Answer(("192.0.2.1",), 1e9)}
    assert look(goal("long.example", addressed=True, kinds=("A",)), long)[0].ttl == LONGEST


def test_what_is_not_there_holds_as_the_zone_says_and_silence_for_a_short_time() -> None:
    nothing = look(goal("gone.example"), {})[0]
    assert (nothing.ttl, nothing.leads_somewhere) == (900.0, False)
    silent = dict.fromkeys((tuple(question) for question in look(goal("gone.example"), {})[1]), None)
    assert look(goal("gone.example"), silent)[0].ttl == MISSED_LASTS  # type: ignore[arg-type]
    half: Zone = {("bare.example", "NAPTR"): None, ("bare.example", "A"): Answer(("192.0.2.1",), 600.0)}
    assert look(goal("bare.example"), half)[0].ttl == UNSURE_LASTS, "a server that knows no NAPTR ends no telephony"
    assert places(goal("bare.example"), half) == [("udp", "192.0.2.1", 5060)]


def test_a_zone_of_ten_thousand_servers_makes_a_bounded_number_of_questions_and_candidates() -> None:
    records = tuple(Srv(n, 0, 5060, f"h{n}.evil.example") for n in range(10_000))
    pointers = tuple(Naptr(n, 0, "s", "SIP+D2U", f"n{n}.evil.example") for n in range(10_000))
    zone: Zone = {
        ("evil.example", "NAPTR"): Answer(pointers, 1.0),
        ("_sip._udp.evil.example", "SRV"): Answer(records, 1),
    }
    zone |= {(f"n{n}.evil.example", "SRV"): Answer(records[:3], 1.0) for n in range(10_000)}
    zone |= {(f"h{n}.evil.example", "A"): Answer(tuple(f"192.0.2.{k}" for k in range(200)), 1.0) for n in range(99)}
    assert len(look(goal("evil.example"), zone)[1]) < 100
    assert len(places(goal("evil.example"), zone)) == MOST_CANDIDATES


def test_weights_share_the_load_and_priorities_do_not() -> None:
    """RFC 2782: each of equal priority is first with a chance of its weight; all come some time."""
    records = [Srv(1, 60, 1, "a"), Srv(1, 30, 2, "b"), Srv(1, 10, 3, "c"), Srv(1, 0, 4, "d"), Srv(0, 0, 5, "first")]
    chance, first = Random(7), Counter[str]()
    for _ in range(4000):
        order = in_order(records, lambda most: chance.randint(0, most))
        assert order[0].target == "first" and len(set(order)) == 5
        first[order[1].target] += 1
    share = {name: count / 4000 for name, count in first.items()}
    assert abs(share["a"] - 0.6) < 0.05 and abs(share["b"] - 0.3) < 0.05 and abs(share["c"] - 0.1) < 0.03
    assert 0 < share["d"] < 0.03, "weight 0 has a small chance"


def test_addresses_are_put_in_the_order_that_is_given_and_named_once() -> None:
    wanted = goal("bare.example", addressed=True)
    found = Found((), {"bare.example": ("192.0.2.1", "2001:db8::1", "192.0.2.1")}, 60.0)
    order = candidates(wanted, found, lambda most: 0, lambda there: sorted(there, reverse=True), DEFAULT_PORTS)
    assert order == [Candidate("udp", "2001:db8::1", 5060), Candidate("udp", "192.0.2.1", 5060)]
