"""Whose a message is, read in C, beside its twin in Python."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from native_build import extension

from orchestrator.views.kept_call import call_id_of, usual_call_id


@pytest.fixture(scope="module")
def fast() -> ModuleType:
    return extension()


PIECES = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\nCall-ID: ",
    b"Call-ID:",
    b" ",
    b"\t",
    b"\x0b",
    b"a@b",
    b"\xff",
    b"BYE sip:x SIP/2.0",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
@example(b"\r\nCall-ID: ")
@example(b"\r\nCall-ID: \r")
@example(b"\r\nCall-ID: \r\n")
@example(b"a\r\n\r\nCall-ID: x\r\n")
@example(b"\r\r\nCall-ID: x\r\r\n\r\n")
def test_it_reads_what_its_twin_reads(fast: ModuleType, message: bytes) -> None:
    assert fast.call_id(message) == usual_call_id(message)


@pytest.mark.parametrize(
    ("message", "call_id"),
    [
        (b"BYE sip:b@c SIP/2.0\r\nTo: <sip:b@c>\r\nCall-ID:  one@a \r\nCSeq: 1 BYE\r\n\r\n", b"one@a"),
        (b"BYE sip:b@c SIP/2.0\r\ni: two\r\n\r\nv=0\r\nCall-ID: one\r\n\r\n", b"two"),
        (b"BYE sip:b@c SIP/2.0\r\nI: two\r\n\r\nCall-ID: one\r\n\r\n", b"two"),
        (b"BYE sip:b@c SIP/2.0\r\nCALL-ID:two\r\nCall-ID", b"two"),
        (b"BYE sip:b@c SIP/2.0\r\n\r\n\r\nCall-ID: one\r\n", b""),
        (b"\r\n\r\n", b""),
    ],
)
def test_a_body_names_no_call(message: bytes, call_id: bytes) -> None:
    assert call_id_of(message) == call_id


def test_it_takes_octets_only(fast: ModuleType) -> None:
    with pytest.raises(TypeError):
        fast.call_id("text")
