"""What leaves a recording before it is written: passwords always, numbers, addresses and digits when asked.

A recording is shared: it lies in a repository, or in a ticket. What is taken out is replaced, and the same thing always
by the same: a number that was dialled is the same other number in the events of both legs, in the Call-ID and in the
commands, so that a recording still tells one story and replays like the real one. uuids stay; they name nobody.

Numbers are known by where they stand (a caller id, the user of a SIP URI), not by their looks: a timestamp is no
number. They are replaced where a user can stand; `8000` in a codec's rate stays although somebody dialled 8000.

Bytes are handled as UTF-8 with surrogates, so that what is no text comes through as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any
from urllib.parse import unquote_to_bytes

from orchestrator.esl.codec import EVENT_JSON, EVENT_PLAIN, Frame
from orchestrator.testing.recordings import url_encode

HIDDEN = "***"

_NAMED = r"(?<![\w-])[\w-]*(?:passw(?:or)?d|secret|token|api[_-]?key|a1[_-]?hash|credential)[\w-]*"
_SECRET_HEADER = re.compile(
    rf"(?i)(?:{_NAMED}|.*(?:authorization|sip_auth_(?:response|nonce|cnonce)|[_-]pin|pn[_-](?:prid|param|purr|tok|auth)))"
)
_SECRET_VALUE = re.compile(
    rf"(?i)({_NAMED}\s*[=:]\s*[\"']?)([^\s,;}}\]\"'&]+)|(\binline:|\bice-pwd:|\b(?:Digest|Basic|Bearer)\s+)(\S[^\r\n]*)"
)
"""`sip_auth_password=x` in a dial string or a body, keys in SDP (RFC 4568, RFC 8839), credentials of HTTP and SIP."""

_PUSH = re.compile(r"(?i)(\bpn-(?:prid|param|purr|tok|auth)=)[^;>,\s\"'?]+")
"""Whoever knows them can wake the phone (RFC 8599)."""

_AUTH = re.compile(r"(?i)(auth\s+|userauth\s+[^:\s]*:)(.*)")

_NUMBER_HEADER = re.compile(
    r"(?i).*(?:(?:caller|callee)[-_](?:id[-_])?(?:number|name)|destination[-_]number|ani|rdnis|dialed[-_](?:user|ext\w*)"
    r"|(?:from|to|req|contact|auth|invite|referred_by|divert)[-_]user(?:_stripped)?|username)"
)
_NUMBER = re.compile(r"\+?[0-9]{3,20}")
_IN_URI = re.compile(r"(?<![\w.+-])\+?[0-9]{3,20}(?=@)|(?<=tel:)\+?[0-9]{3,20}")
_CHANNEL_HEADER = re.compile(r"(?i).*channel[-_]name")
_IN_CHANNEL = re.compile(r"(?<=/)\+?[0-9]{3,20}$")
_IN_COMMAND = re.compile(r"(?<![\w.+-])(\+?[0-9]{3,20})(?![\w.-])")

_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_HOST_HEADERS = ("FreeSWITCH-Hostname", "FreeSWITCH-Switchname")
_KEPT = [ip_network(text) for text in ("127.0.0.0/8", "0.0.0.0/32", "::/127")]
"""Loopback and "any" name nobody, and a test may depend on them."""

_EXAMPLES = [ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15")]
"""Addresses for examples and benchmarks (RFC 5737, RFC 2544): nobody's."""

_DIGIT_HEADER = re.compile(r"(?i)DTMF-Digit|variable_\w*(?:digits|dtmf)\w*")
_DIGITS = re.compile(r"[0-9A-D*#]+")
_IN_DTMF = re.compile(r"(?i)(\bSignal\s*=\s*|_dtmf\s+[0-9a-f-]{36}\s+)([0-9A-D*#w]+)")


class Redaction:
    """One set of replacements, for all connections of a recording. Passwords and keys are always hidden.

    `numbers`, `addresses` (IP addresses and host names of FreeSWITCH) and `digits` (pressed keys become 0) are chosen
    by the user.
    """

    def __init__(self, *, numbers: bool = False, addresses: bool = False, digits: bool = False) -> None:
        self.numbers = numbers
        self.addresses = addresses
        self.digits = digits
        self._number_of: dict[str, str] = {}
        self._address_of: dict[str, str] = {}

    # --- both directions ---------------------------------------------------------------------------------------------

    def frame(self, frame: Frame) -> tuple[str, str]:
        """Head (without its final empty line) and body of a frame of the server, with lengths that are right."""
        body = frame.body.decode("utf-8", "surrogateescape")
        if frame.content_type == EVENT_PLAIN:
            body = self._plain(body)
        elif frame.content_type == EVENT_JSON:
            body = self._json(body)
        else:
            body = self.text(body)
        head = "\n".join(self._head_line(line) for line in _lines(frame.head.decode("utf-8", "surrogateescape")))
        return with_length(head, body), body

    def command(self, head: str, body: str) -> tuple[str, str]:
        """A command of the client: its lines, and the body of a sendmsg or of an event."""
        first, *rest = head.split("\n")
        found = _AUTH.fullmatch(first)
        if found is not None:
            return f"{found[1]}{HIDDEN}", self.text(body)
        lines = [self._words(first), *(self._head_line(line, self._words) for line in rest)]
        body = self._words(body)
        return with_length("\n".join(lines), body), body

    # --- values ------------------------------------------------------------------------------------------------------

    def value(self, name: str, value: str) -> str:
        """The decoded value of one header."""
        if _SECRET_HEADER.fullmatch(name):
            return HIDDEN if value else value
        if self.digits and _DIGIT_HEADER.fullmatch(name) and _DIGITS.fullmatch(value):
            return "0" * len(value)
        if self.addresses and name in _HOST_HEADERS:
            return "freeswitch"
        if self.numbers and _NUMBER_HEADER.fullmatch(name) and _NUMBER.fullmatch(value):
            return self._number(value)
        if self.numbers and _CHANNEL_HEADER.fullmatch(name):
            value = _IN_CHANNEL.sub(lambda found: self._number(found[0]), value)
        return self.text(value)

    def text(self, text: str) -> str:
        """Any text: secrets behind their names, numbers in URIs, addresses."""
        text = _SECRET_VALUE.sub(lambda found: f"{found[1] or found[3]}{HIDDEN}", text)
        text = _PUSH.sub(rf"\1{HIDDEN}", text)
        if self.digits:
            text = _IN_DTMF.sub(lambda found: found[1] + "0" * len(found[2]), text)
        if self.numbers:
            text = _IN_URI.sub(lambda found: self._number(found[0]), text)
        return self._addresses(text) if self.addresses else text

    def _words(self, text: str) -> str:
        """A command, where a number can be any word."""
        text = self.text(text)
        if not self.numbers:
            return text
        return _IN_COMMAND.sub(lambda found: self._number(found[0]) if self._is_number(found[0]) else found[0], text)

    def _is_number(self, word: str) -> bool:
        """A word of a command that was seen as a number, or that is too long to be anything else."""
        return word in self._number_of or (word not in self._number_of.values() and len(word) >= 7)

    def _number(self, number: str) -> str:
        """The stand-in of a number: as long, and no other's."""
        if number in self._number_of.values():
            return number  # replaced already
        if number not in self._number_of:
            digits = number.lstrip("+")
            counted = str(len(self._number_of) + 1).rjust(len(digits) - 1, "0")
            self._number_of[number] = "+" * (len(number) - len(digits)) + "5" + counted
        return self._number_of[number]

    def _addresses(self, text: str) -> str:
        return _IPV6.sub(self._address, _IPV4.sub(self._address, text))

    def _address(self, found: re.Match[str]) -> str:
        text = found[0]
        try:
            address = ip_address(text)
        except ValueError:  # a time of day, a version
            return text
        if any(address in network for network in _KEPT) or text in self._address_of.values():
            return text
        key = str(address)
        if key not in self._address_of:
            number = len(self._address_of) + 1
            self._address_of[key] = _example(number) if isinstance(address, IPv4Address) else f"2001:db8::{number:x}"
        return self._address_of[key]

    # --- blocks ------------------------------------------------------------------------------------------------------

    def _plain(self, block: str) -> str:
        """The body of text/event-plain: URL-encoded lines, and behind an empty line a body as it is."""
        head, gap, body = block.partition("\n\n")
        lines = [self._encoded_line(line) for line in head.split("\n")]
        if not gap or not body:
            return "\n".join(lines) + gap + body
        body = self.text(body)
        return with_length("\n".join(lines), body) + gap + body

    def _encoded_line(self, line: str) -> str:
        name, colon, raw = line.partition(": ")
        value = unquote_to_bytes(raw.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
        redacted = self.value(name, value) if colon else value
        return line if redacted == value else f"{name}: {url_encode(redacted).decode()}"

    def _head_line(self, line: str, redact: Callable[[str], str] | None = None) -> str:
        name, colon, value = line.partition(": ")
        if not colon or name in ("Content-Length", "Content-Type"):
            return line
        if redact is not None and not _SECRET_HEADER.fullmatch(name):
            return f"{name}: {redact(value)}"
        return f"{name}: {self.value(name, value)}"

    def _json(self, text: str) -> str:
        try:
            fields = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return self.text(text)
        if not isinstance(fields, dict):
            return self.text(text)
        redacted = {name: self._field(name, value) for name, value in fields.items()}
        return text if redacted == fields else json.dumps(redacted, separators=(",", ":"))

    def _field(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._field(name, item) for item in value]
        return self.value(name, value) if isinstance(value, str) else value


def with_length(head: str, body: str) -> str:
    """The head with the Content-Length the body has now, where it has one."""
    length = len(body.encode("utf-8", "surrogateescape"))
    return re.sub(r"(?im)^(Content-Length: )[0-9]+$", lambda found: f"{found[1]}{length}", head)


def _lines(head: str) -> list[str]:
    return head.removesuffix("\n").split("\n")


def _example(number: int) -> str:
    """The n-th address that is nobody's; after some hundred thousand of them they begin anew."""
    number -= 1
    for network in _EXAMPLES:
        usable = network.num_addresses - 2
        if number < usable:
            return str(network[number + 1])
        number -= usable
    return _example(1 + number % 100_000)
