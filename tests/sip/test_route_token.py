"""The token of our Record-Route: of which dialog it is, and where the two sides were seen."""

from __future__ import annotations

import random
from itertools import product

import pytest

from orchestrator.sip.points import Hop, Point
from orchestrator.sip.route_token import KEY_SIZE, RouteTokens
from orchestrator.sip.uri import parse_uri

HERE = Point(0, "udp", "10.0.0.1", 5060)
CALLER = Hop(HERE, "203.0.113.5", 40001)
CALLEE = Hop(HERE, "2001:db8::7", 65535, 70_000)
SIDES = (None, CALLER, CALLEE)


def tokens(key: bytes = b"k" * KEY_SIZE) -> RouteTokens:
    return RouteTokens(key)


@pytest.mark.parametrize(("caller", "callee"), list(product(SIDES, SIDES)))
def test_each_side_is_told_where_the_other_was_seen(caller: Hop | None, callee: Hop | None) -> None:
    token = tokens().make(b"call", b"a", caller, callee)
    from_caller, from_callee = tokens().read(token, b"call", b"a", b"b"), tokens().read(token, b"call", b"b", b"a")
    assert from_caller is not None and from_callee is not None
    assert (from_caller.seen, from_callee.seen) == tuple(side and side[1:4] for side in (callee, caller))


def test_without_nat_it_is_short() -> None:
    assert len(tokens().make(b"call", b"a")) == 16
    assert len(tokens().make(b"call", b"a", CALLER)) == 16 + 2 * 9
    assert len(tokens().make(b"call", b"a", CALLEE, CALLEE)) == 16 + 2 * 48


def test_it_is_a_user_part_and_shows_no_address() -> None:
    token = tokens().make(b"call", b"a", CALLER, CALLEE)
    assert parse_uri(b"sip:%b@h" % token).user == token
    assert token.isalnum()
    assert bytes((203, 0, 113, 5)) not in bytes.fromhex(token.decode())
    assert token != tokens().make(b"call2", b"a", CALLER, CALLEE)
    assert token[16:] != tokens().make(b"call2", b"a", CALLER, CALLEE)[16:], "no two calls under the same stream"


def test_the_same_dialog_has_the_same_token() -> None:
    assert tokens().make(b"call", b"a", CALLER) == tokens().make(b"call", b"a", CALLER)


@pytest.mark.parametrize(
    ("call_id", "from_tag", "to_tag"),
    [(b"Call", b"a", b"b"), (b"call", b"x", b"b"), (b"call", b"A", b"b"), (b"call", None, b"b"), (b"", b"a", b"b")],
)
@pytest.mark.parametrize("side", SIDES)
def test_of_another_dialog_it_is_worth_nothing(
    call_id: bytes, from_tag: bytes | None, to_tag: bytes, side: Hop | None
) -> None:
    token = tokens().make(b"call", b"a", None, side)
    assert tokens().read(token, call_id, from_tag, to_tag) is None


def test_nor_under_another_key() -> None:
    token = tokens().make(b"call", b"a")
    assert tokens(b"x" * KEY_SIZE).read(token, b"call", b"a", b"b") is None


def test_a_caller_without_a_tag_has_a_dialog_too() -> None:
    """RFC 2543 had callers without one."""
    token = tokens().make(b"call", None)
    assert tokens().read(token, b"call", None, b"b") is not None


def test_where_one_part_ends_and_the_next_begins_is_no_matter_of_opinion() -> None:
    made = [tokens().make(*parts) for parts in ((b"c", b"ab"), (b"ca", b"b"), (b"cab", b""), (b"c ab", b""))]
    assert tokens().read(made[0], b"c\na", b"b", b"x") is None
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    "token",
    [b"", b"0", b"zz", b"0123456789abcde", b"0" * 14, b"0" * 16, b"0" * 4000, b"\xff" * 16, b"%30" * 5],
)
def test_what_is_none_is_read_as_none(token: bytes) -> None:
    assert tokens().read(token, b"call", b"a", b"b") is None


def test_no_octet_of_it_can_be_changed_or_left_out() -> None:
    chance = random.Random(1)
    token = tokens().make(b"call", b"a", CALLER, CALLEE)
    octets = bytes.fromhex(token.decode())
    for at in range(len(octets)):
        changed = bytearray(octets)
        changed[at] ^= chance.randrange(1, 256)
        assert tokens().read(changed.hex().encode(), b"call", b"a", b"b") is None
        assert tokens().read(octets[:at].hex().encode(), b"call", b"a", b"b") is None
    assert tokens().read(token + b"00", b"call", b"a", b"b") is None
    assert tokens().read(token.upper(), b"call", b"a", b"b") is not None


@pytest.mark.parametrize("sides", list(product(SIDES, SIDES)))
def test_the_mark_of_a_gateway_is_told_of_the_callers_requests_only(
    sides: tuple[Hop | None, Hop | None],
) -> None:
    made = tokens()
    token = made.make(b"call", b"a", *sides, gateway="telco", wall=1_800_000_059.9)
    onward, back = made.read(token, b"call", b"a", b"b"), made.read(token, b"call", b"b", b"a")
    assert onward is not None and back is not None
    assert (onward.gateway, onward.seen) == (made.mark("telco"), sides[1] and sides[1][1:4])
    assert onward.second == 1_800_000_059
    assert (back.gateway, back.seen) == (b"", sides[0] and sides[0][1:4])
    assert made.mark("telco") != made.mark("telco2") != tokens(b"x" * KEY_SIZE).mark("telco2")
    assert made.read(token, b"other", b"a", b"b") is None
