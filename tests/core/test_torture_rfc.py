"""RFC 4475 and RFC 5118: how the copies look that the core sends on, and what its registrar has understood.

tests/conftest.py leaves this file out where the messages of the RFCs are not there.
"""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from torture_stage import MESSAGES, V6, Stage

from orchestrator.sip.message import Request, parse_message
from orchestrator.sip.points import ListenPoint
from orchestrator.testing.phone import Address
from orchestrator.testing.world import PROXY, World

pytestmark = pytest.mark.torture


# --- what the copies look like ----------------------------------------------------------------------------------------


def test_wsinv_follows_its_route_and_keeps_what_it_does_not_know() -> None:
    copy = Stage("wsinv").copy
    assert copy.max_forwards == 67
    assert [route.uri for route in copy.routes()] == [b"sip:services.example.com;lr;unknownwith=value;unknown-no-value"]
    assert copy.get(b"unknownheaderwithunusualvalue") == b";;,,;;,;"
    assert copy.get(b"newfangledheader") == b"newfangled value continued newfangled value"
    assert len(copy.vias()) == 4
    assert len(copy.body) == 150


UNTOUCHED = ["intmeth", "esc01", "esc02", "mpart01", "semiuri", "invut", "sdp01", "baddate", "ipv6-in-sdp"]


@pytest.mark.parametrize("name", UNTOUCHED)
def test_a_copy_differs_from_the_original_only_where_a_proxy_changes_something(name: str) -> None:
    stage = Stage(name)
    original = parse_message(stage.message.data)
    assert isinstance(original, Request)
    copy = stage.copy
    assert (copy.method, copy.uri, copy.body) == (original.method, original.uri, original.body)
    ours = (b"via", b"max-forwards", b"record-route", b"content-length")

    def lines(message: Request) -> list[bytes]:
        return [line for key, line in zip(message.names, message.lines, strict=True) if key not in ours]

    assert lines(copy) == lines(original)


def test_esc02_is_no_register() -> None:
    stage = Stage("esc02")
    assert stage.copy.method == b"RE%47IST%45R"
    assert len(stage.copy.contacts()) == 2


def test_longreq_is_answered_with_all_its_vias() -> None:
    stage = Stage("longreq")
    trying = parse_message(stage.answers[0][1])
    assert len(trying.vias()) == 34
    assert len(stage.copy.vias()) == 35


def test_inv2543_gets_a_max_forwards_and_a_length() -> None:
    copy = Stage("inv2543").copy
    assert copy.max_forwards == 70
    assert copy.get(b"content-length") == b"%d" % len(copy.body)
    assert copy.body.endswith(b"m=audio 49217 RTP/AVP 0\r\n")


def test_bext01_names_what_the_proxy_does_not_know() -> None:
    [(_, data)] = Stage("bext01").answers
    assert parse_message(data).get(b"unsupported") == b"noProxiesSupportThis, norDoAnyProxiesSupportThis"


# --- what the registrar has understood --------------------------------------------------------------------------------


def registered(name: str) -> list[bytes]:
    return sorted(binding.contact for binding in Stage(name).world.location)


def test_escnull_registers_two_contacts_for_a_user_with_a_nul() -> None:
    stage = Stage("escnull")
    assert registered("escnull") == [b"sip:%00%00@host5.example.com", b"sip:%00@host5.example.com"]
    assert {binding.aor for binding in stage.world.location} == {"null-\0-null@example.com"}


def test_dblreq_registers_one_contact_and_the_rest_is_noise() -> None:
    stage = Stage("dblreq")
    assert len(stage.world.location) == 1
    assert len(stage.out) == 1


def test_cparam_tells_parameters_of_the_header_from_those_of_the_uri() -> None:
    assert registered("cparam01") == [b"sip:+19725552222@gw1.example.net"]
    assert registered("cparam02") == [b"sip:+19725552222@gw1.example.net;unknownparam"]


def test_regescrt_keeps_the_escaped_header_and_rings_without_it() -> None:
    stage = Stage("regescrt")
    [binding] = stage.world.location
    assert binding.contact == b"sip:user@example.com?Route=%3Csip:sip.example.com%3E"
    caller = stage.world.peer("caller", "192.0.2.50")
    caller.ask("INVITE", "sip:user@example.com")
    stage.world.run()
    copy = stage.copy
    assert copy.uri == b"sip:user@example.com"
    assert copy.routes() == []


# --- RFC 5118 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("port-unambiguous", ("2001:db8::10", 5070)),
        ("via-received-param-with-delim", ("2001:db8::10", 5060)),
        ("via-received-param-no-delim", ("2001:db8::10", 5060)),
        ("ipv6-in-sdp", ("2001:db8::10", 5060)),
        ("ipv6-bug-abnf-3-colons", ("2001:db8::c000:201", 5060)),
        ("ipv6-correct-abnf-2-colons", ("2001:db8::c000:201", 5060)),
    ],
)
def test_an_ipv6_reference_leads_to_its_address_without_a_lookup(name: str, target: Address) -> None:
    stage = Stage(name)
    if MESSAGES[name].verdict["method"] == "REGISTER":
        stage.world = World(points=(ListenPoint(*PROXY), V6), trust=(ip_network("192.0.2.0/24"),), domains=())
        stage.deliver(stage.message.data)
    assert [to for to, data in stage.out if not data.startswith(b"SIP/2.0 ")] == [target]
    assert stage.world.jobs == []
    assert stage.copy.via.host == b"[2001:db8:ffff::1]"


def test_a_received_with_or_without_brackets_is_the_same_address() -> None:
    for name in ("via-received-param-with-delim", "via-received-param-no-delim"):
        message = parse_message(MESSAGES[name].data)
        assert any(via.received == b"2001:db8::9:255" for via in message.vias())
