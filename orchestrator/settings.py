"""The configuration: what `config/orchestrator.yml` may say, as one typed, frozen model.

The file is read with the reader of the flows, so that nothing in it is typed by YAML (a password `0123` stays that) and
every mistake is named with its line and column. Pydantic holds the model: each key has a default, unknown keys are
errors. A value may come from the environment, `{env: NAME}` or `{env: NAME, default: value}`, so that one file serves a
machine and a container; a password also from a file, `{file: path}`.

`read_settings` turns text and an environment into `Settings` and touches nothing else. Paths are kept as written, that
is relative to the working directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
)
from pydantic_core import ErrorDetails

from orchestrator.errors import Diagnostic, InputError, MalformedMessage
from orchestrator.flow.diagnostics import in_order
from orchestrator.flow.expr.lexer import seconds
from orchestrator.flow.suggest import meant
from orchestrator.flow.yaml import Document, Entries, Items, Node, Scalar, parse
from orchestrator.sip.uri import parse_uri

DEFAULT_FILE = Path("config/orchestrator.yml")

TRANSPORTS = ("udp",)
"""What can be listened on."""

PLANNED_TRANSPORTS = ("tcp", "tls", "ws", "wss")
"""What the form of `listen` provides for; refused by name until it is built."""

FACTORY_PASSWORD = "ClueCon"  # noqa: S105 - known to everybody, which is why it is refused
"""The Event Socket password of a FreeSWITCH nobody has configured. It gives a shell to whoever reaches the port."""


class Misfit(ValueError):
    """A value that does not fit its key; `help` says what would."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.help = help


# --- values -----------------------------------------------------------------------------------------------------------


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


def _listen(value: Any) -> Listen:
    text = _text(value)
    transport, colon, rest = text.partition(":")
    if not colon or transport not in (*TRANSPORTS, *PLANNED_TRANSPORTS):
        raise Misfit(f"{text!r} does not say what to listen on", "write udp:0.0.0.0:5060")
    if transport not in TRANSPORTS:
        raise Misfit(f"{transport} is not built yet", f"remove it; known: {', '.join(TRANSPORTS)}")
    return Listen(transport, _address(rest, None, "udp:0.0.0.0:5060"))


def _admin_address(value: Any) -> Address:
    return _address(_text(value), None, "127.0.0.1:8080")


def _advertised(value: Any) -> Address | None:
    """Port 0 stands for the port of the socket."""
    return None if value is None else _address(_text(value), 0, "203.0.113.7 or 203.0.113.7:5060")


_DURATIONS = "write 500ms, 4s, 3m or 2h"


def _duration(value: Any) -> float:
    text = _text(value)
    found = seconds(text)
    if found is None:
        number = text.isascii() and text.isdigit()
        raise Misfit(f"{text!r} is not a duration", f"write {text}ms or {text}s" if number else _DURATIONS)
    if not found:
        raise Misfit("a timer of 0 would fire at once", _DURATIONS)
    return found


def _network(value: Any) -> IPv4Network | IPv6Network:
    text = _text(value)
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise Misfit(f"{text!r} is not an IP address or network", "write 10.0.0.5, 10.0.0.0/8 or fd00::/8") from None


def _host(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text) and not _is_ipv6(text):
        raise Misfit(f"{text!r} is not a host name or an IP address", "write 127.0.0.1, ::1 or freeswitch")
    return text


def _domain(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", text):
        raise Misfit(f"{text!r} is not a domain", "write example.com, without sip: and without a port")
    return text.lower()


def _location_url(value: Any) -> str:
    text = _text(value)
    if text.partition(":")[0] in ("redis", "rediss"):
        raise Misfit("redis is not built yet", "use sqlite:///orchestrator.db or memory:")
    if text == "memory:" or re.fullmatch(r"sqlite:///.+", text):
        return text
    raise Misfit(f"{text!r} is not a location store", "write sqlite:///orchestrator.db or memory:")


def _sip_uri(value: Any) -> str | None:
    if value is None:
        return None
    text = _text(value)
    try:
        if parse_uri(text.encode()).is_sip:
            return text
    except MalformedMessage:
        pass
    raise Misfit(f"{text!r} is not a sip: URI", "write sip:127.0.0.1:5080")


def _gateway_uri(value: Any) -> str:
    return _sip_uri(_text(value)) or ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise Misfit("a single value is expected here" if value is not None else "a value is missing here")


def _one_by_one(value: Any) -> Any:
    """A list may be written as the one value it holds."""
    return [value] if isinstance(value, str) else value


Duration: TypeAlias = Annotated[float, PlainValidator(_duration)]
"""Seconds; written 500ms, 4s, 3m."""
Network: TypeAlias = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=10_000_000)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65_535)]


# --- the model --------------------------------------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimerSettings(_Section):
    """RFC 3261's timers, in seconds."""

    t1: Duration = 0.5
    t2: Duration = 4.0
    t4: Duration = 5.0
    c: Duration = 180.0


class SipSettings(_Section):
    listen: Annotated[
        tuple[Annotated[Listen, PlainValidator(_listen)], ...], BeforeValidator(_one_by_one), Field(min_length=1)
    ] = (Listen("udp", Address("0.0.0.0", 5060)),)  # noqa: S104 - a SIP server is there to be reached
    advertise: Annotated[Address | None, PlainValidator(_advertised)] = None
    domains: Annotated[tuple[Annotated[str, PlainValidator(_domain)], ...], BeforeValidator(_one_by_one)] = (
        "example.com",
    )
    trust: Annotated[tuple[Network, ...], BeforeValidator(_one_by_one)] = (
        ip_network("127.0.0.0/8"),
        ip_network("::1/128"),
    )
    timers: TimerSettings = TimerSettings()


class FreeSwitchSettings(_Section):
    """One FreeSWITCH server: its Event Socket, and where it takes calls."""

    host: Annotated[str, PlainValidator(_host)] = "127.0.0.1"
    port: Port = 8021
    password: Annotated[SecretStr, Field(min_length=1)] = SecretStr(FACTORY_PASSWORD)
    sip: Annotated[str | None, PlainValidator(_sip_uri)] = None

    @property
    def sip_uri(self) -> str:
        """Where calls for this server go: `sip`, else port 5080 of its host, FreeSWITCH's own for trunks."""
        return self.sip or f"sip:{Address(self.host, 5080)}"


def guarded(server: FreeSwitchSettings) -> FreeSwitchSettings:
    """The server itself. Raises Misfit when everybody on its network knows its password."""
    if server.password.get_secret_value() == FACTORY_PASSWORD and not _is_loopback(server.host):
        raise Misfit(
            f"the factory password is refused for {server.host}, which is not this machine",
            "set a password of your own in FreeSWITCH's event_socket.conf.xml and here",
        )
    return server


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class GatewaySettings(_Section):
    """Where calls to other networks go."""

    uri: Annotated[str, PlainValidator(_gateway_uri)]


class AdminSettings(_Section):
    listen: Annotated[Address, PlainValidator(_admin_address)] = Address("127.0.0.1", 8080)


class HttpSettings(_Section):
    """What `http:` steps may connect to."""

    allow: Annotated[tuple[Network, ...], BeforeValidator(_one_by_one)] = ()


class LimitSettings(_Section):
    transactions: Count = 20_000
    subscriptions: Count = 200_000
    contacts_per_aor: Count = 10
    message: Annotated[int, Field(ge=1_300, le=65_535)] = 65_535
    """Octets. Less than a single datagram of an ordinary network would leave phones without an answer."""


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(_Section):
    """The whole configuration."""

    sip: SipSettings = SipSettings()
    location: Annotated[str, PlainValidator(_location_url)] = "sqlite:///orchestrator.db"
    freeswitch: Mapping[str, Annotated[FreeSwitchSettings, AfterValidator(guarded)]] = Field(default_factory=dict)
    gateways: Mapping[str, GatewaySettings] = Field(default_factory=dict)
    flows: Annotated[tuple[Path, ...], BeforeValidator(_one_by_one)] = (Path("flows"),)
    admin: AdminSettings = AdminSettings()
    http: HttpSettings = HttpSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()


# --- from text to model -----------------------------------------------------------------------------------------------


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file. Raises InputError, also when the file cannot be read."""
    try:
        text = _read(path)
    except Misfit as misfit:
        raise InputError([Diagnostic(str(path), 1, 1, "E003", str(misfit))]) from None
    return read_settings(str(path), text, environ)


def read_secret(path: Path) -> str:
    """The secret that a file holds, without the line feed editors put behind it. Raises Misfit."""
    return _read(path).rstrip("\n")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Misfit(f"cannot read {path}: {reason}") from None


def read_settings(name: str, text: str, environ: Mapping[str, str]) -> Settings:
    """The settings in `text`; `name` is what diagnostics call it. Raises InputError with every mistake found."""
    document = parse(name, text)
    reader = _Reader(document, environ)
    values = {} if document.root is None else reader.value(document.root, ())
    if reader.diagnostics:
        raise InputError(in_order(reader.diagnostics))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InputError(in_order(reader.diagnostic(details) for details in error.errors())) from None


@dataclass(slots=True)
class _Reader:
    """Turns nodes into plain values and remembers where each stood."""

    document: Document
    environ: Mapping[str, str]
    diagnostics: list[Diagnostic] = field(default_factory=list)
    places: dict[tuple[str | int, ...], tuple[Node, Scalar | None]] = field(default_factory=dict)
    """Path of keys and indexes → the value's node and that of its key."""

    def __post_init__(self) -> None:
        self.diagnostics += self.document.diagnostics

    def value(self, node: Node, path: tuple[str | int, ...], key: Scalar | None = None) -> Any:
        self.places[path] = (node, key)
        if isinstance(node, Scalar):
            return None if node.plain and node.text in ("", "~", "null") else node.text
        if isinstance(node, Items):
            return [self.value(item, (*path, index)) for index, item in enumerate(node)]
        if "env" in node and set(node.entries) <= {"env", "default"}:
            return self._from_environment(node, path)
        if path[-1:] == ("password",) and set(node.entries) == {"file"}:
            return self._from_file(node)
        return {name.text: self.value(item, (*path, name.text), name) for name, item in node}

    def _from_environment(self, node: Entries, path: tuple[str | int, ...]) -> Any:
        name = node.get("env")
        if not isinstance(name, Scalar) or not name.text:
            return self._mistake(name or node, "E105", "the name of an environment variable is expected here")
        if self.environ.get(name.text):
            return self.environ[name.text]
        if (default := node.get("default")) is not None:
            value = self.value(default, path)
            self.places[path] = (default, None)
            return value
        help = f"set it, or give a default: {{env: {name.text}, default: ...}}"
        return self._mistake(name, "E106", f"environment variable {name.text} is not set", help)

    def _from_file(self, node: Entries) -> Any:
        name = node.get("file")
        if not isinstance(name, Scalar):
            return self._mistake(name or node, "E105", "the name of a file is expected here")
        try:
            return read_secret(Path(name.text))
        except Misfit as misfit:
            return self._mistake(name, "E003", str(misfit))

    def _mistake(self, node: Node, code: str, message: str, help: str = "") -> None:
        self.diagnostics.append(self._at(node, code, message, help))

    def _at(self, node: Node, code: str, message: str, help: str = "") -> Diagnostic:
        length = max(1, node.end - node.start) if isinstance(node, Scalar) else 1
        return Diagnostic(self.document.name, node.line, node.column, code, message, help=help, length=length)

    def diagnostic(self, details: ErrorDetails) -> Diagnostic:
        """One of pydantic's complaints, in the words and at the place of the user's file."""
        path = details["loc"]
        while path not in self.places:
            path = path[:-1]
        node, key = self.places[path]
        if details["type"] == "extra_forbidden" and key is not None:
            known = _keys_at(path[:-1])
            return self._at(key, "E101", f"unknown key {key.text!r}", meant(key.text, known))
        return self._at(node, *_words(details))


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    """The keys the model knows at a path of the file."""
    if path[:1] == ("freeswitch",):
        return list(FreeSwitchSettings.model_fields)
    if path[:1] == ("gateways",):
        return list(GatewaySettings.model_fields)
    model: type[BaseModel] = Settings
    for key in path:
        if key in model.model_fields:
            annotation = model.model_fields[str(key)].annotation
            assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
            model = annotation
    return list(model.model_fields)


_SHAPES = {
    "missing": ("E115", "a key is missing here"),
    "model_type": ("E103", "a map is expected here"),
    "dict_type": ("E103", "a map is expected here"),
    "tuple_type": ("E103", "a list is expected here"),
    "string_type": ("E105", "a single value is expected here"),
    "path_type": ("E105", "a path is expected here"),
    "int_type": ("E105", "a number is expected here"),
    "too_short": ("E106", "this must not be empty"),
}
"""Pydantic's type of error → our code and words."""


def _words(details: ErrorDetails) -> tuple[str, str, str]:
    """Code, message and help for one error."""
    kind, shown, context = details["type"], repr(details["input"]), details.get("ctx", {})
    if kind in _SHAPES:
        return (*_SHAPES[kind], f"add {details['loc'][-1]}:" if kind == "missing" else "")
    if isinstance(misfit := context.get("error"), Misfit):
        return "E106", str(misfit), misfit.help
    if kind in ("int_parsing", "int_parsing_size"):
        return "E106", f"{shown} is not a whole number", ""
    if kind == "greater_than_equal":
        return "E106", f"{shown} is too small", f"the least is {context['ge']}"
    if kind == "less_than_equal":
        return "E106", f"{shown} is too large", f"the most is {context['le']}"
    if kind == "literal_error":
        known = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return "E106", f"{shown} is not known here", meant(str(details["input"]), known)
    return "E106", details["msg"], ""
