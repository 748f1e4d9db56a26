"""Our own place in the network: what we recognise as ourselves, whom we trust, where URIs lead."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from orchestrator.core.settings import CoreSettings
from orchestrator.sip.layer import TransactionLayer
from orchestrator.sip.locate import Found, Goal, found_at
from orchestrator.sip.message import Request, parse_message
from orchestrator.sip.network import SipNetwork
from orchestrator.sip.points import Hop, ListenPoint
from orchestrator.sip.route_token import KEY_SIZE
from orchestrator.sip.tokens import Tokens
from orchestrator.sip.uri import parse_uri
from orchestrator.timers import Timers

POINTS = (ListenPoint("proxy.example.com", 5060, bound="10.0.0.1"), ListenPoint("2001:db8::1", 5070))


def invite(call_id: str = "c1") -> Request:
    lines = (
        "INVITE sip:bob@example.com SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1",
        "Max-Forwards: 70",
        "From: <sip:alice@example.com>;tag=a",
        "To: <sip:bob@example.com>",
        f"Call-ID: {call_id}",
        "CSeq: 1 INVITE",
        "Contact: <sip:alice@192.0.2.9>",
        "Content-Length: 0\r\n\r\n",
    )
    message = parse_message("\r\n".join(lines).encode())
    assert isinstance(message, Request)
    return message


class Place:
    """A network whose names are looked up by hand."""

    def __init__(self, points: tuple[ListenPoint, ...] = POINTS, **settings: Any) -> None:
        settings.setdefault("domains", ("Example.com", "example.org"))
        self.timers = Timers()
        self.asked: list[tuple[str, Callable[..., None]]] = []
        layer = TransactionLayer(self.timers, lambda data, to: None)
        tokens = Tokens(lambda size: bytes(size))
        self.network = SipNetwork(CoreSettings(points, **settings), layer, tokens, self._look_up, bytes(KEY_SIZE))
        self.found: list[tuple[int, str, int] | None] = []

    def resolve(self, uri: str, index: int = 0) -> list[tuple[int, str, int] | None]:
        """The hops found so far, with the index of the point they leave by."""
        self.network.resolve(parse_uri(uri.encode()), self.network.points[index], self._find)
        return self.found

    def _look_up(self, goal: Goal, found: Callable[[Found | None], None]) -> None:
        self.asked.append((goal.name, lambda *there: found(found_at(goal, *there) if there else None)))

    def _find(self, hop: Hop | None, further: tuple[Hop, ...] = ()) -> None:
        self.found.append(None if hop is None else (hop.point.index, hop.host, hop.port))


# --- ourselves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "own", "local", "ends"),
    [
        ("sip:proxy.example.com", True, True, True),
        ("sip:PROXY.example.com:5060", True, True, True),
        ("sip:10.0.0.1:5060", True, True, True),
        ("sip:10.0.0.1:5080", False, False, False),  # FreeSWITCH on the same machine
        ("sip:[2001:db8::1]:5070", True, True, True),
        ("sip:[2001:db8::1]", False, True, False),  # the bare address as a domain; the socket there is not ours
        ("sip:bob@EXAMPLE.com", False, True, True),
        ("sip:bob@example.org", False, True, True),
        ("sip:bob@example.com:5099", False, True, False),
        ("sip:bob@example.net", False, False, False),
        ("sip:example.com.evil.net", False, False, False),
        ("tel:+4930123", False, False, False),
    ],
)
def test_what_is_us_and_what_is_ours(uri: str, own: bool, local: bool, ends: bool) -> None:
    network, parsed = Place().network, parse_uri(uri.encode())
    assert (network.is_own(parsed), network.is_local(parsed), network.ends_here(parsed)) == (own, local, ends)


def test_a_domain_that_is_an_address_is_not_everything_on_that_machine() -> None:
    network = Place(domains=("10.0.0.1",)).network
    assert not network.ends_here(parse_uri(b"sip:mod_sofia@10.0.0.1:5080"))
    assert network.ends_here(parse_uri(b"sip:10.0.0.1"))


@pytest.mark.parametrize(
    ("uri", "aor"),
    [
        ("sip:bob@example.org", "bob@example.org"),
        ("sip:bob@EXAMPLE.com:5060;x=y", "bob@example.com"),
        ("sip:bob@10.0.0.1", "bob@example.com"),  # who dials our address means our first domain
        ("sip:bob@10.0.0.1:5080", "bob@10.0.0.1"),
        ("sip:%62ob@example.com", "bob@example.com"),
        ("sip:bob@[2001:db8::1]:5070", "bob@example.com"),
    ],
)
def test_the_address_of_record_of_a_uri(uri: str, aor: str) -> None:
    assert Place().network.aor(parse_uri(uri.encode())) == aor


def test_without_domains_our_addresses_are_the_domain() -> None:
    network = Place(domains=()).network
    assert network.aor(parse_uri(b"sip:bob@10.0.0.1")) == "bob@10.0.0.1"
    assert network.is_local(parse_uri(b"sip:bob@10.0.0.1"))


def test_we_name_ourselves_by_the_point_a_message_leaves_from() -> None:
    network = Place().network
    assert network.points[0].via == b"Via: SIP/2.0/UDP proxy.example.com:5060;branch="
    assert network.points[1].via == b"Via: SIP/2.0/UDP [2001:db8::1]:5070;branch="
    [line] = network.record_routes(network.points[1], invite(), Hop(network.points[1], "2001:db8::9", 5060), None)
    assert line.startswith(b"Record-Route: <sip:")
    assert line.endswith(b"@[2001:db8::1]:5070;lr>")


# --- trust ------------------------------------------------------------------------------------------------------------


def test_whom_we_trust() -> None:
    network = Place(trust=(ip_network("10.0.0.0/24"), ip_network("2001:db8::/32"))).network
    assert [network.trusts(host) for host in ("10.0.0.7", "2001:db8::7")] == [True, True]
    assert [network.trusts(host) for host in ("10.0.1.7", "2001:db9::7", "::ffff:10.0.0.7", "name")] == [False] * 4
    assert network.trusts("10.0.0.7"), "remembered"


def test_strangers_cannot_grow_the_table_of_sources() -> None:
    network = Place().network
    for number in range(25_000):
        network.trusts(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(network._trusted) <= 10_000


# --- where URIs lead --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "hop"),
    [
        ("sip:bob@192.0.2.1", (0, "192.0.2.1", 5060)),
        ("sip:bob@192.0.2.1:5099;transport=UDP", (0, "192.0.2.1", 5099)),
        ("sip:bob@[2001:db8::9]:5099", (1, "2001:db8::9", 5099)),
        ("sip:bob@192.0.2.1;maddr=192.0.2.2", (0, "192.0.2.1", 5060)),
        ("sip:bob@192.0.2.1;transport=tcp", None),
        ("sips:bob@192.0.2.1", None),
        ("tel:+4930123", None),
        ("sip:bob@255.255.255.255", None),
        ("sip:bob@[1:2]", None),
    ],
)
def test_an_address_leads_somewhere_at_once_or_nowhere(uri: str, hop: tuple[int, str, int] | None) -> None:
    place = Place()
    assert place.resolve(uri) == [hop]
    assert place.asked == []


def test_a_socket_of_the_right_family_is_chosen_and_the_one_the_request_came_by_is_preferred() -> None:
    two = (ListenPoint("10.0.0.1", 5060), ListenPoint("10.0.0.1", 5062), ListenPoint("2001:db8::1", 5060))
    place = Place(two)
    assert place.resolve("sip:192.0.2.1", 1) == [(1, "192.0.2.1", 5060)]
    assert place.resolve("sip:192.0.2.1", 2)[-1] == (0, "192.0.2.1", 5060)
    assert place.resolve("sip:[2001:db8::9]", 0)[-1] == (2, "2001:db8::9", 5060)
    assert Place((two[0],)).resolve("sip:[2001:db8::9]") == [None]


def test_a_name_is_asked_for_once_and_remembered_for_a_minute() -> None:
    place = Place()
    assert place.resolve("sip:Phone.example.net:5070") == []
    [(host, answer)] = place.asked
    assert host == "phone.example.net"
    answer("192.0.2.1")
    assert place.found == [(0, "192.0.2.1", 5070)]
    place.timers.run_due(59.0)
    assert place.resolve("sip:phone.example.net:5080")[-1] == (0, "192.0.2.1", 5080)
    assert len(place.asked) == 1
    place.timers.run_due(61.0)
    place.resolve("sip:phone.example.net:5070")
    assert len(place.asked) == 2


def test_a_name_that_was_not_found_is_asked_for_again_after_ten_seconds() -> None:
    place = Place()
    place.resolve("sip:gone.example.net")
    place.asked[0][1]()
    assert place.found == [None]
    assert place.resolve("sip:gone.example.net") == [None, None]
    assert len(place.asked) == 1, "a failure is kept, for less time than an address is"
    place.timers.run_due(10.5)
    place.resolve("sip:gone.example.net")
    assert len(place.asked) == 2


@pytest.mark.parametrize("address", ["255.255.255.255", "0.0.0.0", "::ffff:255.255.255.255", "not an address", ""])
def test_a_name_server_cannot_send_us_where_no_datagram_may_go(address: str) -> None:
    place = Place()
    place.resolve("sip:trap.example.net")
    place.asked[0][1](address)
    assert place.found == [None]


def test_who_is_called_over_tls_has_to_prove_the_name_in_the_uri() -> None:
    """RFC 5922 §4: the domain that was asked for, whatever its SRV records name."""
    place = Place((*POINTS, ListenPoint("10.0.0.1", 5061, "tls")))
    hops: list[Hop | None] = []
    for uri in (b"sips:bob@Carrier.example.net", b"sips:bob@192.0.2.1", b"sip:bob@192.0.2.1;transport=tls"):
        place.network.resolve(parse_uri(uri), place.network.points[0], hops.append)
    [(_, answer)] = place.asked
    answer("192.0.2.9")
    assert [hop and (hop.host, hop.port, hop.name) for hop in hops] == [
        ("192.0.2.1", 5061, "192.0.2.1"), ("192.0.2.1", 5061, "192.0.2.1"), ("192.0.2.9", 5061, "carrier.example.net"),
    ]  # fmt: skip
