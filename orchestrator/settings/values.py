"""How single values of the configuration are written, and what is said when one is not.

Every `parse_*` takes what the reader made of a node (text, None, a list or a map), gives the typed value or raises
`Misfit`, whose message names the value and whose `help` is a line to write instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainValidator

from orchestrator.errors import MalformedMessage
from orchestrator.flow.expr.lexer import seconds
from orchestrator.sip.uri import parse_uri

TRANSPORTS = ("udp",)
"""What can be listened on."""

PLANNED_TRANSPORTS = ("tcp", "tls", "ws", "wss")
"""What the form of `listen` provides for; refused by name until it is built."""


class Misfit(ValueError):
    """A value that does not fit its key; `help` says what would."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.help = help


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port; an IPv6 host is kept without its brackets. Port 0, where allowed, lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listen:
    """One socket for SIP: `udp:0.0.0.0:5060`."""

    transport: str
    address: Address

    def __str__(self) -> str:
        return f"{self.transport}:{self.address}"


_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")


def _address(text: str, port: int | None, example: str) -> Address:
    """Read `host:port`; `port` is the one to take when none is written, None when there must be one."""
    match = _HOST_AND_PORT.fullmatch(text)
    written = match[3] if match else None
    if match is None or (written is None and port is None) or int(written or 0) > 65_535:
        bare_ipv6 = text.count(":") > 1 and "[" not in text
        raise Misfit(f"{text!r} is not an address and a port", f"write {'[::1]:5060' if bare_ipv6 else example}")
    if match[1] is not None and not _is_ipv6(match[1]):
        raise Misfit(f"{match[1]!r} is not an IPv6 address", "write [::1]:5060")
    return Address(match[1] or match[2], int(written) if written else port or 0)


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv6Address)
    except ValueError:
        return False


def parse_listen(value: Any) -> Listen:
    text = _text(value)
    transport, colon, rest = text.partition(":")
    if not colon or transport not in (*TRANSPORTS, *PLANNED_TRANSPORTS):
        raise Misfit(f"{text!r} does not say what to listen on", "write udp:0.0.0.0:5060")
    if transport not in TRANSPORTS:
        raise Misfit(f"{transport} is not built yet", f"remove it; known: {', '.join(TRANSPORTS)}")
    return Listen(transport, _address(rest, None, "udp:0.0.0.0:5060"))


def parse_admin_address(value: Any) -> Address:
    return _address(_text(value), None, "127.0.0.1:8080")


def parse_socket_address(value: Any) -> Address | None:
    return None if value is None else _address(_text(value), None, "127.0.0.1:8084")


def parse_advertised(value: Any) -> Address | None:
    """Port 0 stands for the port of the socket."""
    return None if value is None else _address(_text(value), 0, "203.0.113.7 or 203.0.113.7:5060")


_DURATIONS = "write 500ms, 4s, 3m or 2h"


def parse_duration(value: Any) -> float:
    text = _text(value)
    found = seconds(text)
    if found is None:
        number = text.isascii() and text.isdigit()
        raise Misfit(f"{text!r} is not a duration", f"write {text}ms or {text}s" if number else _DURATIONS)
    if not found:
        raise Misfit("a timer of 0 would fire at once", _DURATIONS)
    return found


def parse_pause(value: Any) -> float | None:
    """A duration, or None for never."""
    return None if value is None else parse_duration(value)


def parse_network(value: Any) -> IPv4Network | IPv6Network:
    text = _text(value)
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise Misfit(f"{text!r} is not an IP address or network", "write 10.0.0.5, 10.0.0.0/8 or fd00::/8") from None


def parse_host(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text) and not _is_ipv6(text):
        raise Misfit(f"{text!r} is not a host name or an IP address", "write 127.0.0.1, ::1 or freeswitch")
    return text


def parse_directory_user(value: Any) -> str | None:
    if value is None:
        return None
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9._+-]+@[A-Za-z0-9._-]+", text):
        raise Misfit(f"{text!r} is not a user of FreeSWITCH's directory", "write name@domain")
    return text


def parse_domain(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", text):
        raise Misfit(f"{text!r} is not a domain", "write example.com, without sip: and without a port")
    return text.lower()


def parse_file(value: Any) -> Path | None:
    """A file to write; null, or nothing at all, for none."""
    return None if value is None or value == "" else Path(_text(value))


def parse_location(value: Any) -> str:
    text = _text(value)
    if text.partition(":")[0] in ("redis", "rediss"):
        raise Misfit("redis is not built yet", "use sqlite:///orchestrator.db or memory:")
    if text == "memory:" or re.fullmatch(r"sqlite:///.+", text):
        return text
    raise Misfit(f"{text!r} is not a location store", "write sqlite:///orchestrator.db or memory:")


def parse_sip_uri(value: Any) -> str | None:
    if value is None:
        return None
    text = _text(value)
    try:
        if parse_uri(text.encode()).is_sip:
            return text
    except MalformedMessage:
        pass
    raise Misfit(f"{text!r} is not a sip: URI", "write sip:127.0.0.1:5080")


def parse_gateway_uri(value: Any) -> str:
    return parse_sip_uri(_text(value)) or ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise Misfit("a single value is expected here" if value is not None else "a value is missing here")


def one_by_one(value: Any) -> Any:
    """A list may be written as the one value it holds."""
    return [value] if isinstance(value, str) else value


Duration: TypeAlias = Annotated[float, PlainValidator(parse_duration)]
"""Seconds; written 500ms, 4s, 3m."""
Network: TypeAlias = Annotated[IPv4Network | IPv6Network, PlainValidator(parse_network)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=10_000_000)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65_535)]
