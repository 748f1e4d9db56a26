"""STUN on the SIP port, against the values of RFC 5769 and RFC 8489."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sip.stun import binding_response

ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
COOKIE = bytes.fromhex("2112a442")
REQUEST = bytes.fromhex("00010000") + COOKIE + ID


def with_attributes(octets: bytes) -> bytes:
    return REQUEST[:2] + len(octets).to_bytes(2, "big") + REQUEST[4:] + octets


def test_an_ipv4_address_as_in_rfc_5769() -> None:
    """§2.2 has 192.0.2.1:32853 under this transaction id as a147 e112a643."""
    answer = binding_response(REQUEST, "192.0.2.1", 32853)
    assert answer == bytes.fromhex("0101000c") + COOKIE + ID + bytes.fromhex("002000080001a147e112a643")


def test_an_ipv6_address_as_in_rfc_5769() -> None:
    """§2.3 has 2001:db8:1234:5678:11:2233:4455:6677 port 32853."""
    answer = binding_response(REQUEST, "2001:db8:1234:5678:11:2233:4455:6677", 32853)
    assert answer is not None
    assert answer[20:] == bytes.fromhex("002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9")


def test_a_request_of_rfc_3489_is_answered_in_its_way() -> None:
    old = bytes.fromhex("00010000") + b"0123456789abcdef"
    answer = binding_response(old, "192.0.2.1", 5060)
    assert answer == bytes.fromhex("0101000c") + b"0123456789abcdef" + bytes.fromhex("0001000800") + bytes.fromhex(
        "0113c4c0000201"
    )


def test_a_fingerprint_is_answered_with_one() -> None:
    head = REQUEST[:2] + (8).to_bytes(2, "big") + REQUEST[4:]
    signed = head + bytes.fromhex("80280004") + (crc32(head) ^ 0x5354554E).to_bytes(4, "big")
    answer = binding_response(signed, "192.0.2.1", 32853)
    assert answer is not None
    assert int.from_bytes(answer[2:4], "big") == len(answer) - 20 == 20
    assert answer[-8:-4] == bytes.fromhex("80280004")
    assert int.from_bytes(answer[-4:], "big") == crc32(answer[:-8]) ^ 0x5354554E


def test_a_wrong_fingerprint_gets_silence() -> None:
    assert binding_response(with_attributes(bytes.fromhex("8028000400000000")), "192.0.2.1", 5060) is None


def test_an_attribute_that_must_be_understood_and_is_not_gets_420() -> None:
    answer = binding_response(with_attributes(bytes.fromhex("002400046e0001ff")), "192.0.2.1", 5060)
    assert answer is not None
    assert answer[:2] == b"\x01\x11"
    assert bytes.fromhex("00000414") in answer
    assert answer.endswith(bytes.fromhex("000a000200240000"))
    assert int.from_bytes(answer[2:4], "big") == len(answer) - 20


def test_one_that_need_not_be_understood_is_passed_over() -> None:
    answer = binding_response(with_attributes(bytes.fromhex("8022000474657374")), "192.0.2.1", 5060)
    assert answer is not None and answer[:2] == b"\x01\x01"


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0",
        b"\0\0\0\0",
        REQUEST[:19],
        REQUEST + b"\0",
        b"\x01\x01" + REQUEST[2:],  # a response
        b"\x00\x11" + REQUEST[2:],  # an indication
        REQUEST[:2] + b"\x00\x02" + REQUEST[4:] + b"\0\0",  # no multiple of four
        with_attributes(b"\x80\x22\x00\x08test"),  # longer than the message
        with_attributes(bytes.fromhex("80220250") + bytes(0x250)),  # longer than any path carries
        b"OPTIONS sip:a@example.com SIP/2.0\r\n\r\n",
    ],
)
def test_everything_else_gets_silence(octets: bytes) -> None:
    assert binding_response(octets, "192.0.2.1", 5060) is None


@given(st.binary(max_size=120))
def test_no_octets_raise_and_no_answer_is_much_longer_than_its_question(tail: bytes) -> None:
    for octets in (tail, REQUEST[:2] + len(tail).to_bytes(2, "big") + REQUEST[4:] + tail):
        answer = binding_response(octets, "192.0.2.1", 5060)
        assert answer is None or len(answer) <= len(octets) + 64
