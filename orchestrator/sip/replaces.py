"""`Replaces` (RFC 3891) and `Refer-To` (RFC 3515): which dialog is to be replaced, and by a call to whom."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import BLANKS, parse_params, unescape
from orchestrator.sip.uri import NameAddr, Uri, parse_name_addr, parse_uri


@dataclass(frozen=True, slots=True)
class Replaces:
    """A dialog as whoever gets the header knows it: `local_tag` is his own tag, `remote_tag` that of the other side."""

    call_id: bytes
    local_tag: bytes
    remote_tag: bytes
    early_only: bool = False


def parse_replaces(value: bytes) -> Replaces:
    """A value of Replaces (RFC 3891 §6.1).

    Raises:
        MalformedMessage: not exactly one Call-ID, to-tag and from-tag.
    """
    call_id, semicolon, tail = value.partition(b";")
    params = parse_params(semicolon + tail)
    call_id, local, remote = call_id.strip(BLANKS), params.get(b"to-tag"), params.get(b"from-tag")
    if not call_id or not local or not remote:
        raise MalformedMessage("Malformed Replaces")
    return Replaces(call_id, local, remote, b"early-only" in params)


def replaces_of(uri: Uri) -> bytes | None:
    """The Replaces header that an INVITE to this URI is to carry (RFC 3891 §3, RFC 3261 §19.1.5), None without one."""
    for header in uri.headers.split(b"&"):
        name, _, value = header.partition(b"=")
        if unescape(name).lower() == b"replaces":
            return unescape(value)
    return None


def bare_uri(uri: Uri) -> Uri:
    """A URI without its headers. Raises MalformedMessage."""
    raw = bytes(uri)
    return parse_uri(raw[: -len(uri.headers) - 1]) if uri.is_sip and uri.headers else uri


def parse_refer_to(value: bytes | None) -> NameAddr:
    """Refer-To (RFC 3515 §2.1).

    Raises:
        MalformedMessage: none, or no single address in it.
    """
    if not value:
        raise MalformedMessage("Missing Refer-To")
    address = parse_name_addr(value)
    bare_uri(address.parsed)
    return address
