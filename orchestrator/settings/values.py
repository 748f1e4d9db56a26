"""How single values of the configuration are written, and what is said when one is not.

Every `parse_*` takes what the reader made of a node (text, None, a list or a map), gives the typed value or raises
`InvalidValue`, whose message names the value and whose `help` is a line to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainValidator, SecretStr

from orchestrator.flow.expr import TEXT, ExprError, Expression, Scope, compile_expression
from orchestrator.flow.expr.lexer import seconds
from orchestrator.flow.expr.spelling import did_you_mean
from orchestrator.flow.language.written import (
    TRANSPORTS,
    Flaw,
    address_flaw,
    bare_address,
    gateway_uri_flaw,
    host_flaw,
    server_uri_flaw,
    split_port,
    web_flaw,
)
from orchestrator.packages.location_store import ChosenStore
from orchestrator.packages.push_service import ChosenPush
from orchestrator.packages.setting_types import Duration as Duration
from orchestrator.packages.setting_types import InvalidValue as InvalidValue
from orchestrator.packages.setting_types import parse_duration as parse_duration
from orchestrator.packages.setting_types import parse_text
from orchestrator.packages.sink import ChosenSink
from orchestrator.packages.transport import transport_names
from orchestrator.packages.user_source import ChosenUsers
from orchestrator.runtime.sql_users import driver_flaw
from orchestrator.sip.digest import SPOKEN, canonical
from orchestrator.sip.session_timer import SHORTEST

LISTENING = ("udp", "tcp", "tls", "ws", "wss")
"""Transports that can be listened on; those of packages come to them."""
SECURE = ("tls", "wss")
"""Those of ours that need a certificate."""

_PATH = re.compile(r"/[!-\"$->@-~]*")  # neither query nor fragment
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(:[0-9]{1,5})?|[a-z][a-z0-9+.-]*://\[[0-9a-f:.]+\](:[0-9]{1,5})?")


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


_NOWHERE = ("0.0.0.0", "::")  # noqa: S104 - the addresses that stand for all of a machine
_DIALLABLE = re.compile(r"[A-Za-z0-9+*#._-]{0,32}")


def _address(text: str, port: int | None, example: str) -> Address:
    """Read `host:port`; `port` is the one to take when none is written, None when there must be one."""
    host, written = split_port(text)
    number = int(written) if re.fullmatch(r"[0-9]{1,5}", written) else -1 if text != host else None
    bare = host[1:-1] if host.startswith("[") else host
    wrong = host.startswith("[") != (":" in host) or host_flaw(bare) is not None
    if wrong and re.fullmatch(r"\[[0-9A-Fa-f:.]+\]", host):
        raise InvalidValue(f"{bare!r} is not an IPv6 address", "write [::1]:5060")
    if wrong or (number is None and port is None) or (number is not None and not 0 <= number <= 65_535):
        raise InvalidValue(f"{text!r} is not an address and a port", _address_help(text, port, example))
    return Address(bare, port or 0 if number is None else number)


def _address_help(text: str, port: int | None, example: str) -> str:
    """The address that stands inside something longer, in the form of the example, else the example."""
    meant = bare_address(text)
    if meant.count(":") > 1 and not meant.startswith("["):
        return "write [::1]:5060"
    if port is None and split_port(meant)[1] == "":
        default = example.rpartition(":")[2]
        meant = f"0.0.0.0:{meant}" if re.fullmatch(r"[0-9]{1,5}", meant) else f"{meant}:{default}"
    usable = address_flaw(meant) is None and meant != text
    scheme = f"{example.partition(':')[0]}:" if example.startswith(TRANSPORTS) else ""
    return f"write {scheme}{meant}" if usable else f"write {example}"


def parse_listen(value: Any) -> Listen:
    text = parse_text(value).strip()
    transport, colon, rest = text.partition(":")
    known = (*LISTENING, *transport_names())
    if re.fullmatch("[A-Za-z][A-Za-z0-9_]*", transport) and ":" in rest and transport not in (*known, "sip", "sips"):
        help = did_you_mean(transport, known) or f"known: {', '.join(dict.fromkeys(known))}"
        raise InvalidValue(f"unknown transport {transport!r}", help)
    if not colon or transport not in known:
        message = f"{text!r} does not say what to listen on"
        raise InvalidValue(message, _address_help(f"sip:{text}", None, "udp:0.0.0.0:5060"))
    return Listen(transport, _address(rest, None, "udp:0.0.0.0:5060"))


def parse_admin_address(value: Any) -> Address:
    return _address(parse_text(value), None, "127.0.0.1:8080")


def parse_socket_address(value: Any) -> Address | None:
    return None if value is None else _address(parse_text(value), None, "127.0.0.1:8084")


def parse_name_server(value: Any) -> Address:
    """An IP address, with a port where it is not 53."""
    found = _address(parse_text(value), 53, "192.0.2.53 or 192.0.2.53:5353")
    try:
        ip_address(found.host)
    except ValueError:
        raise InvalidValue(
            f"{value!r} is not the IP address of a name server", "write for example 192.0.2.53"
        ) from None
    return found


def parse_advertised(value: Any) -> Address | None:
    """Port 0 stands for the port of the socket."""
    if value is None:
        return None
    found = _address(parse_text(value), 0, "203.0.113.7 or 203.0.113.7:5060")
    if found.host in _NOWHERE:
        raise InvalidValue(f"{value!r} is not an address that others can reach", "write the address phones see us at")
    return found


def parse_pause(value: Any) -> float | None:
    """A duration, or None for never."""
    return None if value is None else parse_duration(value)


def parse_session(value: Any) -> float | None:
    """A duration of at least 90s (RFC 4028 §5), or None for never."""
    found = parse_pause(value)
    if found is not None and found < SHORTEST:
        raise InvalidValue(f"{parse_text(value)!r} is too short", f"RFC 4028 allows {SHORTEST}s or more")
    return found


def parse_interval(value: Any) -> float:
    """A duration; 0s means never."""
    return 0.0 if seconds(parse_text(value)) == 0 else parse_duration(value)


def parse_network(value: Any) -> IPv4Network | IPv6Network:
    text = parse_text(value)
    try:
        return ip_network(text, strict=False)
    except ValueError:
        meant = split_port(bare_address(text))[0].strip("[]")
        known = re.fullmatch(r"[0-9a-fA-F:.]*[:.][0-9a-fA-F:.]+", meant) and address_flaw(meant) is None
        help = f"write {meant}" if known and meant != text else "write 10.0.0.5, 10.0.0.0/8 or fd00::/8"
        raise InvalidValue(f"{text!r} is not an IP address or network", help) from None


def parse_host(value: Any) -> str:
    text = parse_text(value)
    return _without_flaw(text, host_flaw(text))


def parse_directory_user(value: Any) -> str | None:
    if value is None:
        return None
    text = parse_text(value)
    if not re.fullmatch(r"[A-Za-z0-9._+-]+@[A-Za-z0-9._-]+", text):
        raise InvalidValue(f"{text!r} is not a user of FreeSWITCH's directory", "write name@domain")
    return text


def parse_domain(value: Any) -> str:
    text = parse_text(value)
    flaw = address_flaw(text)
    if flaw is not None or split_port(text)[1]:
        meant = split_port(bare_address(text))[0]
        usable = meant != text and address_flaw(meant) is None
        help = f"write {meant}" if usable else "write example.com, without sip: and without a port"
        raise InvalidValue(f"{text!r} is not a domain", help)
    return text.lower()


def parse_path(value: Any) -> str | None:
    """The path of a WebSocket address; null for any."""
    if value is None:
        return None
    text = parse_text(value)
    if _PATH.fullmatch(text) is None:
        raise InvalidValue(f"{text!r} is not a path", "write /ws, or null for any")
    return text


def parse_origin(value: Any) -> str:
    """Where a page is from (RFC 6454 §6.2), in small letters; `*` for all, `null` for those that have none to say."""
    text = "null" if value is None else parse_text(value).lower()
    if text not in ("*", "null") and _ORIGIN.fullmatch(text) is None:
        raise InvalidValue(
            f"{text!r} is not an origin", "write https://phone.example.com, without a path, or '*' for all"
        )
    return text


def parse_digest(value: Any) -> str:
    text = parse_text(value)
    if canonical(text) not in SPOKEN:
        raise InvalidValue(f"{text!r} is not a digest algorithm", f"write one of {', '.join(SPOKEN)}")
    return canonical(text)


def parse_chosen(value: Any) -> ChosenUsers | None:
    """What the reader has made of the name of a user source."""
    if value is None or isinstance(value, ChosenUsers):
        return value
    raise InvalidValue("the name of a user source is expected here", "write {source: NAME}")


def parse_chosen_push(value: Any) -> ChosenPush:
    """What the reader has made of an entry of `push: services:`."""
    if isinstance(value, ChosenPush):
        return value
    raise InvalidValue("a map with the settings of a push service is expected here")


def parse_provider(value: Any) -> str:
    """What contacts call a push service (`pn-provider`, a token of RFC 3261)."""
    text = parse_text(value)
    if re.fullmatch(r"[A-Za-z0-9.!%*_+`'~-]{1,64}", text) is None:
        raise InvalidValue(f"{text!r} is not a pn-provider", "write it as the phones do: apns, fcm, webpush, acme")
    return text.lower()


def parse_key_source(value: Any) -> Path | SecretStr | None:
    """A key or a certificate: the file it is in; or the thing itself (PEM, JSON), as an environment variable has it."""
    if value is None or value == "":
        return None
    text = parse_text(value)
    return SecretStr(text) if text.lstrip().startswith(("-----BEGIN", "{")) else Path(text)


def parse_web_host(value: Any) -> Address:
    """A server that is asked over HTTPS."""
    return _address(parse_text(value), 443, "push.example.com or push.example.com:2197")


def parse_sink(value: Any) -> ChosenSink:
    """What the reader has made of a sink."""
    if isinstance(value, ChosenSink):
        return value
    raise InvalidValue("a sink is expected here", "write {type: webhook, events: [registered], url: 'https://...'}")


def parse_node(value: Any) -> str:
    """The name of this server: a word that may stand in a URI."""
    text = "" if value is None else parse_text(value)
    if text and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text) is None:
        raise InvalidValue(f"{text!r} cannot be the name of a server", "use letters, digits, . _ and -")
    return text


def parse_database(value: Any) -> str | None:
    """The URL of a database with an installed driver."""
    if value is None:
        return None
    flaw = driver_flaw(parse_text(value))
    if flaw:
        message, _, help = flaw.partition(": ")
        raise InvalidValue(message, help)
    return parse_text(value)


def parse_sql_name(value: Any) -> str:
    """The name of a table, perhaps with its schema, or of a column."""
    text = parse_text(value)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?", text) is None:
        raise InvalidValue(f"{text!r} is not the name of a table or a column", "use letters, digits and _")
    return text


def parse_column(value: Any) -> str | None:
    """The name of a column, or None for none."""
    return None if value is None else parse_sql_name(value)


def holds_everybody(networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether these are, together, all addresses of a family, or nearly all of them."""
    found = list(networks)
    for version, most in ((4, 32), (6, 128)):
        merged = collapse_addresses(network for network in found if network.version == version)  # type: ignore[type-var]
        if sum(network.num_addresses for network in merged) > 2 ** (most - 1):
            return True
    return False


def on_or_off(value: Any) -> Any:
    """What YAML takes for truth values."""
    meant = {"true": "on", "yes": "on", "false": "off", "no": "off"}
    return meant.get(value, value) if isinstance(value, str) else value


def parse_word(value: Any) -> str:
    """A part of a text that is looked for."""
    text = parse_text(value)
    if len(text) < 3 or not text.isprintable():
        raise InvalidValue(f"{text!r} is too little to look for", "write three characters or more, as they are sent")
    return text


def parse_file(value: Any) -> Path | None:
    """A file to write; null, or nothing at all, for none."""
    return None if value is None or value == "" else Path(parse_text(value))


def parse_location(value: Any) -> str | ChosenStore:
    if isinstance(value, ChosenStore):
        return value
    text = parse_text(value)
    if text.partition(":")[0] in ("redis", "rediss"):
        raise InvalidValue("redis is not built yet", "use sqlite:///orchestrator.db or memory:")
    if text == "memory:" or re.fullmatch(r"sqlite:///.+", text):
        return text
    raise InvalidValue(
        f"{text!r} is not a location store",
        "write sqlite:///orchestrator.db, memory: or {store: NAME}",
    )


def parse_sip_uri(value: Any) -> str | None:
    if value is None:
        return None
    text = parse_text(value)
    return _without_flaw(text, server_uri_flaw(text, _sendable()))


def parse_gateway_uri(value: Any) -> str:
    text = parse_text(value)
    return _without_flaw(text, gateway_uri_flaw(text, _sendable()))


def _sendable() -> tuple[str, ...]:
    """All transports there are; whether they are listened on is looked at when the whole file has been read."""
    return (*LISTENING, *transport_names())


def parse_web_address(value: Any) -> str | None:
    return None if value is None else _without_flaw(parse_text(value), web_flaw(parse_text(value)))


def _without_flaw(text: str, flaw: Flaw | None) -> str:
    """The text itself. Raises InvalidValue when something is wrong with it."""
    if flaw is not None:
        raise InvalidValue(flaw.message, flaw.help)
    return text


def parse_number_rule(value: Any) -> Expression | None:
    """The expression of a gateway's `number:` over the dialled `number`."""
    if value is None:
        return None
    try:
        return compile_expression(parse_text(value), Scope({"number": TEXT}), TEXT)
    except ExprError as error:
        raise InvalidValue(error.message, error.help) from None


def parse_prefix(value: Any) -> str:
    text = parse_text(str(value) if isinstance(value, int) else value)
    if not _DIALLABLE.fullmatch(text):
        raise InvalidValue(f"{text!r} cannot stand in front of a number", "write digits, for example '00'")
    return text


def one_by_one(value: Any) -> Any:
    """A list may be written as the one value it holds."""
    return [value] if isinstance(value, str) else value


def split_at_commas(value: Any) -> Any:
    """A list whose items may be several, as an environment variable has them: `udp:0.0.0.0:5060, tcp:0.0.0.0:5060`."""
    if not isinstance(value, list | str):
        return value
    items = one_by_one(value)
    return [part for item in items for part in (item.split(",") if isinstance(item, str) else [item])]


Interval: TypeAlias = Annotated[float, PlainValidator(parse_interval)]
"""The same, with 0s for never."""
Network: TypeAlias = Annotated[IPv4Network | IPv6Network, PlainValidator(parse_network)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=10_000_000)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65_535)]
