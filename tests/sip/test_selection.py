"""The small parts under the proxy: which failure is the best, words nobody can guess, addresses, reason phrases."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sip.headers import parse_via
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.reasons import REASONS, reason_phrase
from orchestrator.sip.routing import Addresses, is_literal, request_uri, response_destination, unicast
from orchestrator.sip.selection import is_challenge, rank
from orchestrator.sip.tokens import Tokens

# --- selection (§16.7 step 6) -----------------------------------------------------------------------------------------


def test_the_order_of_failures() -> None:
    """6xx, then the lowest class; of the 4xx first what the caller can mend, a time-out last; of the 5xx 503 last."""
    order = [600, 603, 604, 606, 300, 302, 401, 407, 415, 420, 484, 400, 403, 404, 480, 486, 487, 408, 500, 504, 503]
    assert sorted(order, key=rank) == order
    for better, worse in pairwise(order):
        assert rank(better) < rank(worse)


@given(st.lists(st.integers(300, 699), min_size=1))
def test_a_6xx_is_better_than_all_else(statuses: list[int]) -> None:
    if any(status >= 600 for status in statuses):
        assert min(statuses, key=rank) >= 600


def test_challenges_are_two_headers() -> None:
    assert is_challenge(b"www-authenticate")
    assert is_challenge(b"proxy-authenticate")
    assert not is_challenge(b"authorization")


# --- reason phrases ---------------------------------------------------------------------------------------------------


def test_every_status_has_a_phrase_that_may_stand_in_a_status_line() -> None:
    assert reason_phrase(486) == "Busy Here"
    assert reason_phrase(499) == "Bad Request", "that of its class"
    assert reason_phrase(199) == "Trying"
    assert reason_phrase(799) == "Unknown"
    assert all(100 <= status < 700 and phrase.isascii() and phrase.isprintable() for status, phrase in REASONS.items())


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_are_eighteen_random_digits_and_never_the_same() -> None:
    tokens = Tokens(os.urandom)
    words = {tokens.token() for _ in range(5000)}
    assert len(words) == 5000
    assert all(len(word) == 18 and int(word, 16) >= 0 for word in words)


def test_entropy_is_drawn_in_blocks_and_used_up_before_the_next() -> None:
    drawn: list[int] = []

    def entropy(size: int) -> bytes:
        drawn.append(size)
        return bytes((len(drawn) * 50 + n) % 256 for n in range(size))

    tokens = Tokens(entropy)
    words = [tokens.token() for _ in range(1000)]
    assert drawn == [4096] * 3
    assert words[454] == bytes((50 + 454 * 9 + n) % 256 for n in range(9)).hex().encode(), "the last of the first block"


def test_a_branch_has_the_cookie_and_is_a_token() -> None:
    branch = Tokens(os.urandom).branch()
    assert branch.startswith(b"z9hG4bK") and len(branch) == 7 + 18


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (b"192.0.2.1", "192.0.2.1"),
        (b"[2001:DB8::1]", "2001:db8::1"),
        (b"[2001:db8:::192.0.2.1]", "2001:db8::c000:201"),
        (b"[::ffff:192.0.2.10]", "192.0.2.10"),
        (b"[::ffff:255.255.255.255]", None),
        (b"[::ffff:0.0.0.0]", None),
        (b"255.255.255.255", None),
        (b"0.0.0.0", None),
        (b"[::]", None),
        (b"224.0.1.75", None),
        (b"[ff02::1]", None),
        (b"example.com", None),
        (b"1.2.3", None),
        (b"0300.1.1.1", None),
        (b"[nonsense]", None),
    ],
)
def test_which_hosts_are_addresses_a_datagram_may_go_to(host: bytes, address: str | None) -> None:
    assert unicast(host) == address
    addresses = Addresses()
    assert addresses.numeric(host) == addresses.numeric(host) == address


def test_what_looks_like_an_address_is_never_looked_up_as_a_name() -> None:
    assert all(is_literal(host) for host in (b"192.0.2.1", b"255.255.255.255", b"[2001:db8::1]", b"[nonsense]"))
    assert not any(is_literal(host) for host in (b"example.com", b"1.2.3", b"localhost"))


def test_strangers_cannot_grow_the_table_of_addresses() -> None:
    addresses = Addresses()
    for number in range(25_000):
        addresses.numeric(b"host%d.example.com" % number)
    assert len(addresses._known) <= 10_000


@pytest.mark.parametrize(
    ("contact", "uri"),
    [
        (b"sip:bob@192.0.2.1", b"sip:bob@192.0.2.1"),
        (b"sip:bob@192.0.2.1;ob?Route=%3Csip:x%3E", b"sip:bob@192.0.2.1;ob"),
        (b"sip:who?@192.0.2.1", b"sip:who?@192.0.2.1"),
        (b"sip:who?@192.0.2.1?a=b&c=d", b"sip:who?@192.0.2.1"),
        (b"no uri? at all", b"no uri? at all"),
    ],
)
def test_a_contact_becomes_a_request_uri_without_its_headers(contact: bytes, uri: bytes) -> None:
    assert request_uri(contact) == uri


def test_answers_go_to_the_source_address_always_and_to_the_source_port_when_asked() -> None:
    hop = Hop(Point(3, "udp", "10.0.0.1", 5060), "198.51.100.1", 40000)
    asked = parse_via(b"SIP/2.0/UDP 192.0.2.1:5070;rport;branch=z9hG4bK1")
    plain = parse_via(b"SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1")
    short = parse_via(b"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
    assert response_destination(asked, hop) == hop
    assert response_destination(plain, hop) == hop._replace(port=5070)
    assert response_destination(short, hop) == hop._replace(port=5060)
