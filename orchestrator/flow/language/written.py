"""Addresses as people write them: what is wrong with one, and what to write instead.

The configuration and the flow files name the same things (hosts, ports, SIP URIs, web addresses), so both ask here.
Each function returns None for an address that can be used, else a `Flaw`. The grammar is that of RFC 3261 §25.1 with
the tolerance of the SIP parser; a test holds one against the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from orchestrator.flow.expr.spelling import did_you_mean

TRANSPORTS = ("udp",)
"""How SIP is sent where no configuration says more."""


class Flaw(NamedTuple):
    """`message` says what is wrong; `help` is what to write instead, '' when there is nothing to offer."""

    message: str
    help: str = ""


_ESCAPED = "|%[0-9A-Fa-f]{2}"
_USER = rf"(?:[A-Za-z0-9\-_.!~*'()&=+$,;?/#]{_ESCAPED})+"
_PASSWORD = rf"(?:[A-Za-z0-9\-_.!~*'()&=+$,]{_ESCAPED})*"
_PARAM = rf";(?:[A-Za-z0-9\-_.!~*'()\[\]/:&+$]{_ESCAPED})+(?:=(?:[A-Za-z0-9\-_.!~*'()\[\]/:&+$,=]{_ESCAPED})+)?"
_HEADERS = rf"(?:[A-Za-z0-9\-_.!~*'()\[\]/?:+$=&;,@]{_ESCAPED})+"

_SIP = re.compile(
    rf"(?P<scheme>[Ss][Ii][Pp][Ss]?):(?:(?P<user>{_USER})(?::{_PASSWORD})?@)?"
    rf"(?P<address>\[[^\]]*\](?::[^;?@]*)?|[^;?@/\[\]]+)(?:{_PARAM})*(?:\?{_HEADERS})?"
)
_SIP_SCHEME = re.compile(r"sips?:", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|(?:sips?|udp|tcp|tls|wss?|sctp):)", re.IGNORECASE)
_WEB = re.compile(r"(?P<scheme>https?)://(?:[^/?#@\s]*@)?(?P<address>[^/?#\s]*)(?P<rest>\S*)", re.IGNORECASE)
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_AOR = re.compile(rf"(?P<user>{_USER})@(?P<host>[^@:;?/]+)")
_BRACKETED = re.compile(r"(?P<display>[^<>]*)<(?P<uri>[^<>]*)>(?P<tail>.*)", re.DOTALL)
_TELEPHONE = re.compile(r"\+?[0-9*#][0-9*#()./ -]*")
_FILLED_IN = re.compile(r"\$\{[^}]*\}")

_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "127.0.0.0/8", "fc00::/7", "fe80::/10")))
_LARGEST = {4: 8, 6: 16}
"""IP version → the shortest prefix of a network that one organisation has."""
_LONGEST = 1_024
"""Characters of an address as written."""
_WEB_EXAMPLE = "https://example.com/path"
_HOSTS = "write 127.0.0.1, ::1 or freeswitch"


# --- hosts and ports ------------------------------------------------------------------------------------------------


def host_flaw(text: str) -> Flaw | None:
    """A host name, an IPv4 address or an IPv6 address (without brackets)."""
    if _is_ip(text):
        return None
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+){1,}", text):
        return Flaw(f"{text!r} is not an IP address", "an IPv4 address has four numbers from 0 to 255")
    if _HOST_NAME.fullmatch(text) and ".." not in text and len(text) <= 253:
        return None
    message = (
        f"{text!r} is not a host name or an IP address" if text else "a host name or an IP address is expected here"
    )
    host, port = split_port(bare_address(text))
    host = host.strip("[]")
    if not host or host == text or host_flaw(host) is not None:
        return Flaw(message, _HOSTS)
    return Flaw(message, f"write {host}" + (f"; the port {port} has a key of its own" if port else ""))


def bare_address(text: str) -> str:
    """`host:port` out of something longer: without scheme, user, parameters, path, and brackets of a URI."""
    text = text.strip().rpartition("<")[2].partition(">")[0]
    text = _without_schemes(text)
    text = re.split(r"[;?/]", text, maxsplit=1)[0]
    return text.rpartition("@")[2]


def _without_schemes(text: str) -> str:
    """The text behind `sip:`, `sip://`, `udp:`; two of them, `udp:sip:`, are written too."""
    for _ in range(2):
        scheme = _OTHER_SCHEME.match(text)
        text = text[scheme.end() :].lstrip("/") if scheme else text
    return text


def split_port(text: str) -> tuple[str, str]:
    """`host:port` as its two parts, '' where there is no port. A bare IPv6 address is a host."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        return host + bracket, rest.removeprefix(":")
    host, _, port = text.partition(":") if text.count(":") == 1 else (text, "", "")
    return host, port


def port_flaw(text: str) -> Flaw | None:
    """A port, 1 to 65535."""
    if re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= 65_535:
        return None
    return Flaw(f"{text!r} is not a port", "a port is a number from 1 to 65535")


def level_flaw(text: str) -> Flaw | None:
    """Why this is no loudness for FreeSWITCH: the mean of the samples of a frame, which have 16 bits."""
    if text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 32767:
        return None
    return Flaw(f"{text!r} is not a level", "a level is a number from 1 to 32767; 200 unless you say")


def address_flaw(text: str) -> Flaw | None:
    """`host` or `host:port`, an IPv6 host in brackets."""
    host, port = split_port(text)
    if host.startswith("[") != (":" in host):
        return Flaw(f"{text!r} is not a host name or an IP address", "an IPv6 address stands in brackets: [::1]:5060")
    flaw = host_flaw(host[1:-1] if host.startswith("[") else host)
    if flaw is not None:
        return Flaw(flaw.message, _HOSTS if flaw.help == _HOSTS else flaw.help)
    return port_flaw(port) if text != host else None


def trust_flaw(network: IPv4Network | IPv6Network) -> Flaw | None:
    """A network that is too large to be trusted: more than one organisation stands behind it."""
    private = (known for known in _PRIVATE if known.version == network.version)
    if network.prefixlen >= _LARGEST[network.version] or any(network.subnet_of(known) for known in private):  # type: ignore[arg-type]
        return None
    who = "everybody" if not network.prefixlen else "a large part of the Internet"
    help = "who sends from there needs no password: name the networks of your own phones and servers"
    return Flaw(f"{network} trusts {who}", help)


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


# --- SIP ------------------------------------------------------------------------------------------------------------


def sip_uri_flaw(text: str, example: str = "sip:127.0.0.1:5080") -> Flaw | None:
    """A `sip:` or `sips:` URI. `example` is offered where nothing nearer to the text can be."""
    found = _SIP.fullmatch(text)
    message = f"{text!r} is not a sip: URI"
    if found is not None:
        flaw = address_flaw(found["address"])
        return Flaw(f"{message}: {flaw.message}", _mended(text) or flaw.help) if flaw else None
    if any(character.isspace() for character in text):
        message = f"{message}: there is a blank in it"
    elif re.search(r"^sips?:(.*@)?([;?]|$)", text, re.IGNORECASE):
        message = f"{message}: the host is missing"
    elif re.match(r"sips?:@", text, re.IGNORECASE):
        message = f"{message}: the user before @ is missing"
    return Flaw(message, _mended(text) or f"write {example}")


def _mended(text: str) -> str:
    """The help with the URI that was probably meant, '' when there is none."""
    bracketed = _BRACKETED.fullmatch(text)
    plain = "".join((bracketed["uri"] if bracketed else text).split()).rstrip("/")
    scheme = "sips:" if plain.lower().startswith("sips:") else "sip:"
    rest = _without_schemes(plain)
    user, _, after = rest.rpartition("@")
    cut = re.search(r"[;?/]", after)
    address, tail = (after[: cut.start()], after[cut.start() :]) if cut else (after, "")
    if address.count(":") > 1 and _is_ip(address):
        address = f"[{address}]"
    meant = scheme + (f"{user}@" if user else "") + address + (tail if tail.startswith((";", "?")) else "")
    found = _SIP.fullmatch(meant)
    usable = found is not None and address_flaw(found["address"]) is None
    number = _TELEPHONE.fullmatch(rest) is not None and not _is_ip(rest)
    return f"write {meant}" if usable and meant != text and not number else ""


def server_uri_flaw(text: str, transports: Sequence[str] = TRANSPORTS) -> Flaw | None:
    """The SIP URI of a server, over one of the transports that are listened on."""
    return sip_uri_flaw(text) or transport_flaw(text, transports)


_USUAL_PORT = {"udp": 5060, "tcp": 5060, "tls": 5061}


def transport_flaw(text: str, transports: Sequence[str] = TRANSPORTS) -> Flaw | None:
    """What keeps a request for a SIP URI from leaving by one of these transports."""
    found = re.search(r";transport=([^;?]*)", text, re.IGNORECASE)
    said, secure = found[1].lower() if found else "", text.lower().startswith("sips:")
    without = text[: found.start()] + text[found.end() :] if found else text
    if said in ("ws", "wss"):
        return Flaw(f"nobody can be connected to over {said}: {text!r} cannot be reached", f"write {without}")
    known = (*_USUAL_PORT, *transports)
    if said not in known and (help := did_you_mean(said, known)):
        return Flaw(f"unknown transport {said!r} in {text!r}", help)
    needed = {"": "tls", "tcp": "tls", "tls": "tls"}.get(said, "") if secure else said
    if secure and not needed:
        return Flaw(f"sips: means TLS, and not {said}: {text!r} cannot be reached", f"write {without}")
    if not needed or needed in transports:
        return None
    message = f"{text!r} needs {needed}, and listen: of sip: has no {needed}:…"
    if needed not in _USUAL_PORT:
        return Flaw(message, f"write {without}")
    add = f"add {needed}:0.0.0.0:{_USUAL_PORT[needed]} to listen:"
    return Flaw(message, add if needed == "tls" else f"{add}, or write {without}")  # TLS is not given up for a mistake


def gateway_uri_flaw(text: str, transports: Sequence[str] = TRANSPORTS) -> Flaw | None:
    """The URI of a gateway: the number that is called becomes its user part, so it has none."""
    flaw = server_uri_flaw(text, transports)
    found = _SIP.fullmatch(text)
    if flaw is not None or found is None or not found["user"]:
        return flaw
    message = f"the URI of a gateway has no user part: the number that is called goes before the @ of {text!r}"
    start, _, rest = text.partition("@")
    return Flaw(message, f"write {start.partition(':')[0]}:{rest}; to log in there add user: and password:")


OVER_TRANSPORTS = (server_uri_flaw, gateway_uri_flaw)
"""Those that have to be told which transports there are."""


def party_flaw(text: str) -> Flaw | None:
    """Who is shown as caller (`from:`): `user@host`, a SIP URI, or either in `Name <…>`."""
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None and not bracketed["tail"].strip():
        return party_flaw(bracketed["uri"])
    if bracketed is not None or "<" in text or ">" in text:
        return Flaw(f"{text!r} is not a calling party", "write 'Alice <sip:alice@example.com>' or alice@example.com")
    if _SIP_SCHEME.match(text):
        found = _SIP.fullmatch(text)
        if found is not None and not found["user"]:
            return Flaw(f"{text!r} does not say who calls: the user is missing", "write sip:alice@example.com")
        return sip_uri_flaw(text, "sip:alice@example.com")
    user, at, _ = text.partition("@")
    if at and user and ":" not in user:
        flaw = sip_uri_flaw(f"sip:{text}", "sip:alice@example.com")
        return flaw and Flaw(f"{text!r} is not a SIP URI or user@host", flaw.help.replace("write sip:", "write "))
    if at and not user:
        return Flaw(f"{text!r} does not say who calls: the user is missing", f"write alice{text}")
    number = "".join(text.removeprefix("tel:").split())
    user = number if re.fullmatch(_USER, number) else "alice"
    return Flaw(f"{text!r} is not a calling party: the host is missing", f"write {user}@example.com")


def aor_flaw(text: str) -> Flaw | None:
    """An address of record, user@domain."""
    found = _AOR.fullmatch(text)
    if found is not None and host_flaw(found["host"]) is None:
        return None
    message = f"{text!r} is not an address of the form user@domain"
    bracketed = _BRACKETED.fullmatch(text)
    uri = bracketed["uri"] if bracketed else text
    plain = "".join(_SIP_SCHEME.sub("", uri).split())
    user, at, rest = plain.partition("@")
    meant = user + at + split_port(re.split(r"[;?/]", rest, maxsplit=1)[0])[0]
    if meant != text and (found := _AOR.fullmatch(meant)) and host_flaw(found["host"]) is None:
        return Flaw(message, f"write {meant}")
    user = plain if not at and re.fullmatch(_USER, plain) else "bob"
    return Flaw(message, f"write {user}@example.com")


def number_flaw(text: str) -> Flaw | None:
    """The number that is called at a gateway; of a URI its user part is taken."""
    plain = text.removeprefix("tel:")
    user = _SIP_SCHEME.sub("", text).partition("@")[0]
    if "${" in text or (re.fullmatch(_USER, user) and not text.startswith("tel:")):
        return None
    joined = "".join(plain.split())
    message = f"{text!r} is not a number that a gateway can be asked for"
    return Flaw(message, f"write {joined}" if re.fullmatch(_USER, joined) else "write '+49301234'")


def destination_help(text: str, words: tuple[str, ...]) -> str:
    """What to write instead of something that is no destination of a call."""
    choices = ", ".join((*words, "a sip: URI, or ${...}"))
    if len(text) > _LONGEST:
        return f"use {choices}"
    telephone = text[4:].partition(";")[0] if text.lower().startswith("tel:") else text
    if _TELEPHONE.fullmatch(telephone):
        number = "".join(telephone.split())
        return f"a number alone names no server: write 'sip:{number}@host', or send the call to gateways:"
    if re.match(r"(?:user|sofia|loopback|error|group)/", text):
        return f"this is a dial string of FreeSWITCH: use {choices}"
    mended = _mended(text) if _SIP_SCHEME.match(text.partition("<")[2] or text) or "@" not in text else ""
    if mended and (":" in text or "<" in text):
        return mended.replace("write ", "write '", 1) + "'"
    if aor_flaw(text) is None:
        return f"write 'sip:{text}', or  aor: {text}  for the phones registered there"
    return f"use {choices}"


# --- the web --------------------------------------------------------------------------------------------------------


def web_flaw(text: str) -> Flaw | None:
    """An `http:` or `https:` URL. What is filled in later (`${…}`) is let pass."""
    filled = _FILLED_IN.sub("0", text)
    found = _WEB.fullmatch(filled)
    if found is None:
        return _not_web(text, filled)
    if not found["address"]:
        return Flaw(f"{text!r} names no server", f"write {_WEB_EXAMPLE}")
    server = text.split("//", 1)[1].split("/", 1)[0]
    flaw = address_flaw(found["address"]) if "${" not in server else None
    return Flaw(f"{text!r} is not a web address: {flaw.message}", flaw.help) if flaw else None


def _not_web(text: str, filled: str) -> Flaw | None:
    if filled != text and text.startswith("${"):
        return None
    if any(character.isspace() for character in filled):
        return Flaw(f"there is a blank in the web address {text!r}", "write %20 for a blank")
    if text.startswith("/") and not text.startswith("//"):
        return Flaw(f"{text!r} names no server", f"write https://example.com{text}, or  endpoint:  beside it")
    rest = re.sub(r"^(?:https?(?::/?|//?|:)|//)", "", text, flags=re.IGNORECASE)
    other = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\d)", text)
    scheme = "http" if re.match(r"http(?!s)", text, re.IGNORECASE) else "https"
    if other is not None and other[1].lower() not in ("http", "https"):
        return Flaw(f"{text!r} is not an http: or https: address", f"write {_WEB_EXAMPLE}")
    meant = f"{scheme}://{rest}"
    usable = rest and _WEB.fullmatch(_FILLED_IN.sub("0", meant))
    return Flaw(f"{text!r} is not an http: or https: address", f"write {meant if usable else _WEB_EXAMPLE}")


def path_flaw(text: str) -> Flaw | None:
    """What an `http:` step puts behind the URL of its endpoint."""
    if _WEB.match(text) or text.startswith("//"):
        path = re.sub(r"^(?:https?:)?//[^/?#]*", "", text, flags=re.IGNORECASE)
        help = f"remove  endpoint: , or write only what follows the URL of the endpoint: {path or '/path'}"
        return Flaw(f"{text!r} is put behind the URL of the endpoint, so it cannot be a whole URL", help)
    if any(character.isspace() for character in _FILLED_IN.sub("", text)):
        return Flaw(f"there is a blank in the web address {text!r}", "write %20 for a blank")
    return None


# --- text that is filled in -----------------------------------------------------------------------------------------


def filled_flaw(text: str, judge: Callable[[str], Flaw | None]) -> Flaw | None:
    """The flaw of a text that it has whatever its `${…}` become; only where a written @ shows what is user and host."""
    if len(text) > _LONGEST:
        return Flaw(f"an address has at most {_LONGEST:,} characters")
    if "${" not in text:
        return judge(text)
    if "@" not in _FILLED_IN.sub("", text):
        return None
    flaw = judge(_FILLED_IN.sub("x", text))
    if flaw is None or judge(_FILLED_IN.sub("1", text)) is None:
        return None
    message = flaw.message.replace(repr(_FILLED_IN.sub("x", text)), repr(text))
    return Flaw(message, "" if flaw.help.startswith("write") else flaw.help)


# --- the environment ------------------------------------------------------------------------------------------------

_ENVIRONMENT = re.compile(
    r"\$?\$\{\s*(?:(?:env|ENV|secrets)[.:])?(?P<braces>[A-Za-z_]\w*)\s*(?::?-(?P<default>[^}]*))?\}"
    r"|\{\{\s*(?:env|ENV)\.(?P<jinja>[A-Za-z_]\w*)\s*\}\}"
    r"|\{\{\s*(?:env_var|env|getenv|lookup)\(?['\" ]+(?P<call>[A-Za-z_]\w*)['\"]\s*\)?\s*\}\}"
    r"|\{\s*env:\s*(?P<map>[A-Za-z_]\w*)\s*\}"
    r"|(?:env|ENV)[.:](?P<word>[A-Z_][A-Z0-9_]*)"
)
_DOLLAR = re.compile(r"\$(?P<name>[A-Z_][A-Z0-9_]*)|%(?P<percent>[A-Z_][A-Z0-9_]*)%")


def environment_reference(text: str, plain: bool) -> str:
    """`{env: NAME}` for a whole value that reads as the notation of a shell, of compose or of a template; else ''.

    `plain` is a value without quotes: only that may be `$NAME`, since a password may begin so.
    """
    found = _ENVIRONMENT.fullmatch(text.strip()) or (_DOLLAR.fullmatch(text.strip()) if plain else None)
    if found is None:
        return ""
    name = next(value for key, value in found.groupdict().items() if value and key != "default")
    default = found.groupdict().get("default")
    return f"{{env: {name}, default: {default}}}" if default else f"{{env: {name}}}"
