"""HEP3 packets, held against octets worked out by hand from the specification (HEP3 rev. 26)."""

from __future__ import annotations

import pytest
from hepkit import chunks
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.integrations.hep.packet import LARGEST, LOG, SIP, TCP, UDP, Encoder

BY_HAND = bytes.fromhex(
    "48455033 0081"  # HEP3, 129 octets in all
    "0000 0001 0007 02"  # IPv4
    "0000 0002 0007 11"  # UDP
    "0000 0007 0008 13c4"  # from port 5060
    "0000 0008 0008 13c6"  # to port 5062
    "0000 0009 000a 65e1a2b4"  # 2024-03-01T09:42:44Z
    "0000 000a 000a 0007a120"  # 500000 microseconds
    "0000 000b 0007 01"  # SIP
    "0000 0003 000a c0000201"  # from 192.0.2.1
    "0000 0004 000a c6336402"  # to 198.51.100.2
    "0000 000c 000a 000007d1"  # capture agent 2001
    "0000 000e 0009 6b6579"  # key "key"
    "0000 0013 0008 6e31"  # node "n1"
    "0000 0011 0009 612d31"  # correlation id "a-1"
    "0000 000f 000a 42594520"  # "BYE "
)


def test_the_octets_of_a_packet() -> None:
    encoder = Encoder(2001, "n1", "key")
    time = 0x65E1A2B4 + 0.5
    made = encoder.packet(SIP, b"BYE ", ("192.0.2.1", 5060), ("198.51.100.2", 5062), UDP, time, b"a-1")
    assert made.hex(" ") == BY_HAND.hex(" ")


def test_ipv6_a_log_line_and_what_is_left_out() -> None:
    made = dict(chunks(Encoder(1).packet(LOG, b"x", ("fe80::1%eth0", 5061), ("2001:db8::2", 5061), TCP, 1.0)))
    assert made[1] == b"\x0a" and made[2] == b"\x06" and made[11] == b"\x64"
    assert made[5] == bytes.fromhex("fe80000000000000 0000000000000001")
    assert made[6] == bytes.fromhex("20010db800000000 0000000000000002")
    assert not made.keys() & {3, 4, 0x0E, 0x11, 0x13}


@pytest.mark.parametrize("ours", ["sip.example.com", "0.0.0.0", ""])
def test_an_address_that_is_none_is_the_unspecified_one(ours: str) -> None:
    made = dict(chunks(Encoder(1).packet(SIP, b"x", (ours, 5060), ("192.0.2.1", 5060), UDP, 1.0)))
    assert made[3] == bytes(4) and made[4] == bytes([192, 0, 2, 1])
    wide = dict(chunks(Encoder(1).packet(SIP, b"x", (ours, 5060), ("2001:db8::1", 5060), UDP, 1.0)))
    assert wide[5] == bytes(16)


def test_microseconds_that_round_up_to_a_second() -> None:
    made = dict(chunks(Encoder(1).packet(SIP, b"x", ("192.0.2.1", 1), ("192.0.2.2", 2), UDP, 41.9999999)))
    assert (made[9], made[10]) == (bytes([0, 0, 0, 42]), bytes(4))


@given(st.binary(max_size=70_000), st.binary(max_size=300), st.sampled_from(["192.0.2.1", "2001:db8::1", "x"]))
def test_any_payload_makes_a_packet_that_fits(payload: bytes, correlation: bytes, host: str) -> None:
    packet = Encoder(7, "node", "password").packet(SIP, payload, (host, 5060), (host, 5060), UDP, 1e9, correlation)
    found = dict(chunks(packet))
    assert len(packet) <= LARGEST and payload.startswith(found[0x0F])
    assert found.get(0x11, b"") == correlation
    assert len(packet) == LARGEST or found[0x0F] == payload
