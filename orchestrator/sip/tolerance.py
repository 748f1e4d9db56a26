"""What we make of messages that are not as RFC 3261 has them: harmless defects are passed on, dangerous ones are not.

A defect is dangerous when two readers of the message could see two different messages: where a header ends, how long
the body is, which transaction or dialog is meant. A request with one is answered 400 where it can be answered; a
response is dropped and counted. Everything else is the business of the two ends. A response goes further than a
request: it belongs to a transaction that waits for it by the branch of our own Via, and nothing else of it decides
where it goes.

`DECISIONS` is the list; a test sends each of them, as a request and as a response where both can have it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from orchestrator.errors import MalformedMessage
from orchestrator.sip.grammar import BLANKS, PARAMS, QUOTED, TOKEN, drop_params, parse_params, unquote
from orchestrator.sip.headers import MAGIC_COOKIE, Via, parse_via
from orchestrator.sip.uri import NameAddr, Uri, parse_name_addr, parse_uri


class Decision(NamedTuple):
    """One kind of defect; `request` and `response` say whether a message with it goes on."""

    defect: str
    request: bool
    response: bool
    why: str


DECISIONS: Final = (
    Decision("two tags in From or To", True, True, "the first one counts, and the line goes on as it came"),
    Decision("unquoted @ in a display name", True, True, "the brackets say where the URI is"),
    Decision("tel: with blanks", True, True, "the URI of From or To routes nothing"),
    Decision("sip: without a host", True, True, "anonymous callers have no host to name"),
    Decision("sip: that cannot be read in From or To", True, True, "the URI of From or To routes nothing"),
    Decision("; at the end of parameters", True, True, "an empty parameter says nothing"),
    Decision("parameter with = and no value", True, True, "`;lr=` and `;rport=` are flags"),
    Decision("; at the end of a URI", True, True, "an empty parameter says nothing"),
    Decision("blank behind the start line", True, True, "a blank says nothing (RFC 4475 trws)"),
    Decision("no empty line at the end of a datagram", False, True, "the datagram ends, so the head does"),
    Decision("the same Content-Length twice", True, True, "all readers see the same length"),
    Decision("Content-Length beyond the datagram", False, True, "§18.3: a request is 400; the length is mended"),
    Decision("Content-Length that is not a number", False, True, "the datagram has a length; the line is mended"),
    Decision("blanks between status and version", False, True, "three digits are three digits"),
    Decision("header line without a colon", False, True, "nobody finds a header in it"),
    Decision("header name that is not a token", False, True, "nobody looks for it"),
    Decision("two Content-Type, Expires or Max-Forwards", False, True, "only the ends read them"),
    Decision("unbalanced quote in From or To", False, True, "the caller knows what he has sent"),
    Decision("comma in an unquoted display name", False, True, "the caller knows what he has sent"),
    Decision("Call-ID with blanks", False, True, "the caller knows his own"),
    Decision("empty tag", False, True, "a request could be inside of a dialog or not"),
    Decision("parameter of the top Via twice", False, True, "the branch is ours"),
    Decision("lower Via that cannot be read", True, True, "the next hop's business"),
    Decision("Contact that cannot be read", True, True, "who is called, or answers, is told as it came"),
    Decision("Max-Forwards in a response", True, True, "it means nothing there"),
    Decision("two different Content-Lengths", False, False, "the body ends in two places"),
    Decision("bare CR or LF in a header", False, False, "a header ends in two places"),
    Decision("NUL in From or To", False, False, "a reader in C stops there"),
    Decision("two Call-IDs", False, False, "two dialogs are meant"),
    Decision("two CSeqs", False, False, "two transactions are meant"),
    Decision("two Froms or Tos", False, False, "two dialogs are meant"),
    Decision("no Call-ID", False, False, "no dialog is meant"),
    Decision("status of four digits", False, False, "no status is meant"),
)
"""`request` is about those of Via, From, To and the start line where a request has them."""

_MAX_PARAMS: Final = 32
"""Parameters of an address that is looked at twice."""
_bracketed = re.compile(
    rb"(" + QUOTED + rb'|[^"<>,\\\x00\r\n]*+)[ \t]*+<([^<>"\x00\r\n]*+)>[ \t]*+(;[^\x00\r\n]*+)?', re.DOTALL
).fullmatch
_is_params = re.compile(PARAMS).fullmatch
_a_tag = re.compile(rb";[ \t]*+[Tt][Aa][Gg][ \t]*+=[ \t]*+(" + TOKEN + rb"++)").search
_a_branch = re.compile(rb";[ \t]*+[Bb][Rr][Aa][Nn][Cc][Hh][ \t]*+=[ \t]*+(" + TOKEN + rb"++)").search
_a_scheme = re.compile(rb"([A-Za-z][A-Za-z0-9+\-.]*+):(.*+)", re.DOTALL).fullmatch


def _opaque(raw: bytes) -> Uri:
    """A URI nobody routes by: read where it can be, else its text."""
    try:
        return parse_uri(raw)
    except MalformedMessage:
        found = _a_scheme(raw)
        return Uri(raw, found[1].lower(), opaque=found[2] or b"?") if found is not None else Uri(raw, b"", opaque=raw)


def read_address(value: bytes) -> NameAddr:
    """A From or To: strictly, else with the harmless defects of `DECISIONS`.

    Raises MalformedMessage: a reader could take something else for the address.
    """
    try:
        return parse_name_addr(value)
    except MalformedMessage:
        found = _bracketed(value) if value.count(b";") <= _MAX_PARAMS else None
        if found is None or not found[2] or found[2] != found[2].strip(BLANKS) or _a_scheme(found[2]) is None:
            raise
        tail = (found[3] or b"").rstrip(BLANKS)
        return NameAddr(unquote(found[1].strip(BLANKS)), found[2], _opaque(found[2]), _first_of_each(tail))


def _first_of_each(tail: bytes) -> dict[bytes, bytes | None]:
    """Parameters, of those that stand twice the first. Raises MalformedMessage."""
    try:
        return parse_params(tail)
    except MalformedMessage:
        tag = _a_tag(tail)
        if tag is None or _is_params(tail) is None:
            raise
        rest = drop_params(tail, (b"tag",))
        return {b"tag": tag[1], **parse_params(rest)}


def any_address(value: bytes) -> NameAddr:
    """A From or To of a response, as well as can be: only its tag matters. Raises MalformedMessage for a NUL."""
    try:
        address = read_address(value)
        if address.tag == b"":
            del address.params[b"tag"]
        return address
    except MalformedMessage:
        if b"\0" in value:
            raise
        tag = _a_tag(value[value.rfind(b">") + 1 :])
        return NameAddr(b"", value, Uri(value, b"", opaque=value or b"?"), {b"tag": tag[1]} if tag is not None else {})


def any_via(value: bytes) -> Via:
    """The top Via of a response, which is our own sent back. Raises MalformedMessage where no branch of ours is in
    it."""
    try:
        return parse_via(value)
    except MalformedMessage:
        branch = _a_branch(value.partition(b",")[0])
        if branch is None or not branch[1].startswith(MAGIC_COOKIE):
            raise
        return Via(b"UDP", b"", None, branch[1], b"")
