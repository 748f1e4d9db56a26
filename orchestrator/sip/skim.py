"""A new request read at a glance: no more of it than a refusal needs, in one match.

In an overload most of what comes is refused, and what a refusal costs is taken from the calls that are served. Half of
it was the parser. So this reads only what the parser reads the same way, and gives up at everything else: another
spelling of a name, a folded line, a header twice, a tag in To, a body that is cut off. Then the parser decides. A test
holds the two against each other.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.sip.grammar import MAX_HEADER, MAX_URI, TOKEN
from orchestrator.sip.headers import Via
from orchestrator.sip.model import Request
from orchestrator.sip.parser import ADDRESS, CALL_ID, CSEQ_NUMBER, HOPS, LENGTH, SIP_URI, TAGGED, TOP_VIA

BEGINNINGS: Final = (b"INVITE ", b"SUBSCRIBE ", b"MESSAGE ")
"""How the octets begin that `skim` may read."""
_REST: Final = rb"[^\r]*+"
"""Of a line. A LF or NUL that stands alone in it is looked for afterwards, which is cheaper."""
_ONCE: Final = (
    (b"Via", TOP_VIA + rb"(?:\r\nVia:" + _REST + rb"){0,20}+"),
    (b"From", TAGGED),
    (b"To", ADDRESS),
    (b"Call-ID", CALL_ID),
    (b"CSeq", CSEQ_NUMBER + rb" (?:INVITE|SUBSCRIBE|MESSAGE)"),
    (b"Max-Forwards", HOPS),
    (b"Content-Length", LENGTH),
    (b"Content-Type", _REST),
    (b"Expires", _REST),
)
"""Header lines that may not stand twice, and their values; Vias stand one below the other."""
_READ: Final = rb"(?i:via|v|from|f|to|t|call-id|i|cseq|max-forwards|content-length|l|content-type|c|expires)[ \t]*+:"
"""The same names in all spellings: one that is not as above is for the parser."""
_OURS: Final = b"(?i:x-orchestrator-)"
"""Headers between FreeSWITCH and us: the request belongs to a call that is in progress, perhaps."""
_OTHER: Final = (
    rb"[ABDGHJKNOPQRSUWYZ]" + TOKEN + rb"*+:" + _REST,
    rb"Contact:" + _REST,
    rb"(?![ABDGHJKNOPQRSUWYZ]|Contact:|" + _READ + b"|" + _OURS + rb")" + TOKEN + rb"++:" + _REST,
)
"""Other lines. Each line fits one alternative and in one way, so that a match that fails does so in one pass."""


def _read_head() -> tuple[re.Pattern[bytes], list[int]]:
    """The expression for a request line and header lines in any order, and the groups of the lines of `_ONCE`: one that
    has been filled lets no second line in."""
    lines, groups, group = [], [], 3
    for name, value in _ONCE:
        lines.append(rb"%b:(?(%d)(?!))([ \t]*+%b)" % (name, group, value))
        groups.append(group)
        group += re.compile(b"(%b)" % value).groups
    start = rb"(INVITE|SUBSCRIBE|MESSAGE) (" + SIP_URI + rb") SIP/2\.0\r\n"
    line = rb"(?:" + b"|".join((*lines, *_OTHER)) + rb")\r\n"
    return re.compile(rb"%b(?:%b){5,99}\r\n" % (start, line)), groups


_head, (_VIA, _FROM, _TO, _CALL_ID, _CSEQ, *_) = _read_head()


class Glimpse(Request):
    """A request of which only this is known: method, URI, top Via, From tag, Call-ID and CSeq, and that To has no tag.
    It has no header lines."""

    __slots__ = ("match", "copied")

    match: re.Match[bytes]
    copied: tuple[bytes, bytes, bytes, bytes, bytes]
    """The values of Via (perhaps with further lines), From, To, Call-ID and CSeq, with the blanks before them."""

    def refusal(self, start_line: bytes, via: Via, to_tag: bytes, header: bytes) -> bytes:
        """What `build_response` makes of the whole request: `start_line`, the lines copied from it (§8.2.6.2) with
        `via` on top and `to_tag` in To, and `header`, a full line."""
        top, from_, to, call_id, cseq = self.copied
        top = top.replace(self.via.tail, via.tail, 1)
        place = self.match.start
        if place(_VIA) < place(_FROM) < place(_TO) < place(_CALL_ID) < place(_CSEQ):
            return (
                b"%b\r\nVia:%b\r\nFrom:%b\r\nTo:%b;tag=%b\r\nCall-ID:%b\r\nCSeq:%b\r\n%b\r\nContent-Length: 0\r\n\r\n"
            ) % (start_line, top, from_, to, to_tag, call_id, cseq, header)
        lines = (
            b"Via:" + top, b"From:" + from_, b"To:%b;tag=%b" % (to, to_tag), b"Call-ID:" + call_id, b"CSeq:" + cseq,
        )  # fmt: skip
        rows = sorted(zip(map(place, (_VIA, _FROM, _TO, _CALL_ID, _CSEQ)), lines, strict=True))
        return b"\r\n".join((start_line, *(line for _, line in rows), header, b"Content-Length: 0\r\n\r\n"))


def skim(data: bytes, limit: int) -> Glimpse | None:
    """The INVITE, SUBSCRIBE or MESSAGE outside of dialogs in a datagram of at most `limit` octets; None when it is
    something else, or not of the usual kind."""
    match = _head.match(data)
    if match is None or len(data) > limit:
        return None
    (
        method, uri, via, transport, host, port, tail, branch, other, from_, tag, to, call, call_id, cseq, number,
        _, hops, _, length, _, _,
    ) = match.groups()  # fmt: skip
    if via is None or from_ is None or to is None or call is None or cseq is None or length is None:
        return None
    end = match.end()
    if (
        not cseq.endswith(method)
        or (hops is not None and int(hops) > 255)
        or int(length) > len(data) - end
        or len(uri) > MAX_URI
        or end > MAX_HEADER
        or data.find(b"\0", 0, end) >= 0
        or data.count(b"\n", 0, end) != data.count(b"\r", 0, end)
    ):
        return None
    request = Glimpse(method, uri)
    request.via = Via(transport, host, int(port) if port is not None else None, branch or other, tail)
    request.from_tag, request.call_id, request.cseq, request.cseq_method = tag, call_id, int(number), method
    request.match, request.copied = match, (via, from_, to, call, cseq)
    return request
