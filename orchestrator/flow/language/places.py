"""The places text can be put into, and what each does with text from outside (FLOWLANG §3.1).

A `Rule` looks at what is written before and after one `${…}` and says how the value is encoded there, or refuses it
(E212). It is asked once, when the flow is loaded: what is ours costs nothing at run time, and the rest one call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any

from orchestrator.flow.expr import complaints
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.nodes import (
    Attribute,
    Binary,
    Conditional,
    Encode,
    Join,
    ListOf,
    Literal,
    Macro,
    Name,
    Node,
)
from orchestrator.flow.expr.types import NUMBER, TEXT, Type, text_origin
from orchestrator.flow.language import encoders
from orchestrator.flow.language.context import TARGET
from orchestrator.flow.language.encoders import Encoder


class Place(Enum):
    """What a key of an action is, for the text in it."""

    PLAIN = "text that goes no further, or that a format encodes"
    URI = "SIP URI that is called"
    PARTY = "SIP URI that is shown"
    GATEWAY_USER = "number at a gateway"
    HEADER = "header value"
    REASON = "reason phrase"
    URL = "URL"
    BODY = "body of a web request"
    COMMAND = "FreeSWITCH command"
    APPLICATION = "name of a FreeSWITCH application"
    ARGUMENTS = "arguments of a FreeSWITCH application"
    VARIABLE = "FreeSWITCH channel variable"
    FILE = "file name"
    CONTEXT = "dialplan context"
    PATTERN = "pattern"
    TRUST = "list of trusted addresses"
    LOG = "log line"


class Refused(Exception):
    """Nothing can make the text safe: `what` it would be here, and the `cure`."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure


class Narrow(Refused):
    """Refused, unless a test has narrowed the text to characters that are safe here."""

    def __init__(self, what: str, cure: str, encoder: Encoder | None) -> None:
        super().__init__(what, cure)
        self.encoder = encoder


Rule = Callable[[str, str, Type], Encoder]
"""(text before, text after, type with its origin) → encoder. Raises Refused. A value of ours is `OUR` in them."""

OUR = "\ue000"
OUTSIDE = "\ue001"

Placer = Callable[[Node], Node]


def placer(rule: Rule, source: str, check: Encoder | None = None) -> Placer:
    """What `compile_template` does with the tree of a text that is put into a place. Raises ExprError E212.

    `check` looks at the whole text once more when something from outside has gone into it.
    """

    def place(node: Node) -> Node:
        if not text_origin(node.type).outside and rule is not sip_uri:
            return node
        if isinstance(node, ListOf):
            node.items = [place(item) for item in node.items]
        elif isinstance(node, Conditional):
            node.then, node.other = place(node.then), place(node.other)
        elif isinstance(node, Binary) and node.op == "??":
            node.left, node.right = place(node.left), place(node.right)
        elif isinstance(node, Macro) and node.name in ("map", "filter"):
            _place_macro(node, place)
        else:
            made = _placed(node, rule, source)
            return _encoded(made, check.write) if check is not None and made is not node else made
        return node

    return place


def _place_macro(node: Macro, place: Placer) -> None:
    if node.name == "map":
        node.body = place(node.body)
    else:
        node.target = place(node.target)


def _placed(node: Node, rule: Rule, source: str) -> Node:
    """The text with what comes from outside encoded; the node itself when nothing is to be done."""
    pieces = list(_pieces(node))
    texts = [_written(piece) for piece in pieces]
    made: list[Node] = []
    for at, piece in enumerate(pieces):
        before, after = "".join(texts[:at]), "".join(texts[at + 1 :])
        made.append(piece if texts[at] != OUTSIDE else _encoded_for(rule, before, after, piece, source))
        port = _port_of(piece) if rule is sip_uri and _is_host(before, after) else None
        if port is not None:
            made.append(port)
    if made == pieces:
        return node
    return made[0] if len(made) == 1 else Join(made, start=node.start, end=node.end, type=node.type, depth=node.depth)


def _encoded_for(rule: Rule, before: str, after: str, piece: Node, source: str) -> Node:
    """A piece from outside as the rule has it encoded between these texts. Raises ExprError E212."""
    alphabet = text_origin(piece.type).alphabet
    try:
        encoder = rule(before, after, piece.type)
    except Narrow as refused:
        if refused.encoder is None or alphabet is None or not alphabet <= refused.encoder.safe:
            raise _complaint(source, piece, refused) from None
        encoder = refused.encoder
    except Refused as refused:
        raise _complaint(source, piece, refused) from None
    safe = encoder is encoders.AS_IS or (alphabet is not None and alphabet <= encoder.safe)
    return piece if safe else _encoded(piece, encoder.write)


def _encoded(node: Node, write: Callable[[str], str]) -> Node:
    return Encode(node, write, start=node.start, end=node.end, type=node.type, depth=node.depth)


def _pieces(node: Node) -> list[Node]:
    """A text taken apart at `${…}` and at `+`."""
    if isinstance(node, Join) and len(node.parts) > 1:
        return [piece for part in node.parts for piece in _pieces(part)]
    if isinstance(node, Binary) and node.op == "+" and node.helper == "concat":
        return [*_pieces(node.left), *_pieces(node.right)]
    if node.type.kind == "any":  # what it is is known at run time: it is written as text first
        return [Join([node], start=node.start, end=node.end, type=Type("text", origin=node.type.origin))]
    return [node]


def _written(piece: Node) -> str:
    if isinstance(piece, Literal) and isinstance(piece.value, str):
        return piece.value.replace(OUR, "?").replace(OUTSIDE, "?")
    return OUTSIDE if text_origin(piece.type).outside else OUR


def _complaint(source: str, piece: Node, refused: Refused) -> ExprError:
    text = source[piece.start : piece.end].strip() or "this"
    text = text.removeprefix("${").removesuffix("}").strip()
    message = f"{text[:60]!r} comes from outside and cannot be {refused.what}"
    return complaints.at(piece, "E212", message, f"{refused.cure}, or write unsafe(…) if you mean it")


# --- SIP --------------------------------------------------------------------------------------------------------------

_SCHEME = re.compile(r"(?:sips?|tel):", re.IGNORECASE)
_WHOLE_CURE = "name a gateway, write aor:, or put it behind  sip:  and in front of  @your.domain"
_HOST_CURE = "name a gateway or write a domain of yours; test it with  in  or  ==  first"


def sip_uri(before: str, after: str, type: Type) -> Encoder:
    """A URI that is called: the stranger may choose the user, never where it goes."""
    if not before and type.origin.registered:
        return encoders.URI if after else encoders.AS_IS
    if not before and not after:
        if type.origin.addressed:
            return encoders.URI if type.kind == "uri" else encoders.ADDRESS
        raise Refused("a whole SIP URI here", _WHOLE_CURE)
    return _sip_part(before, after, type)


def shown_uri(before: str, after: str, type: Type) -> Encoder:
    """A URI that is only shown, as that of the caller: nothing is sent to it."""
    if not before and not after:
        return encoders.LINE
    return _sip_part(before, after, type)


def _sip_part(before: str, after: str, type: Type) -> Encoder:
    scheme = _SCHEME.match(before)
    inside = before[scheme.end() :] if scheme else before
    _, at, rest = inside.rpartition("@")
    if not at:
        if "@" in after and not (not before and ":" in after.partition("@")[0]):
            return encoders.USER
        if scheme and scheme.group().lower() == "tel:":
            return encoders.USER if ";" not in inside else encoders.PARAMETER
        rest = inside
    if "?" in rest:
        if "=" not in re.split("[?&]", rest)[-1]:
            raise Refused("the name of a header in a SIP URI", "write the name")
        return encoders.URI_HEADER
    if ";" in rest:
        return _uri_parameter(rest.rpartition(";")[2])
    if rest or (after and after[0] not in ";?:>"):
        raise Refused("a part of the host of a SIP URI", _HOST_CURE)
    if type.origin.addressed and type.kind != "uri":
        return encoders.HOST if at else encoders.ADDRESS
    raise Refused("the host of a SIP URI" if before else "the scheme or host of a SIP URI", _HOST_CURE)


def _uri_parameter(text: str) -> Encoder:
    name, equals, _ = text.partition("=")
    if not equals:
        raise Refused("the name of a URI parameter", "write the name")
    if name.strip().lower() == "maddr":
        raise Refused("the host a SIP URI is sent to (maddr)", _HOST_CURE)
    return encoders.PARAMETER


def _is_host(before: str, after: str) -> bool:
    """Whether what stands between these texts ends with the host of a SIP URI, and no port follows it."""
    scheme = _SCHEME.match(before)
    inside = before[scheme.end() :] if scheme else before
    plain = scheme is None or scheme.group().lower() == "sip:"
    return plain and inside[-1:] in ("", "@") and after[:1] in ("", ";", "?") and "@" not in after


def _port_of(piece: Node) -> Node | None:
    """The port of the Request-URI, to be written behind its host: without it the call would go to another server
    (RFC 3261 §19.1.2: none is 5060). None where the piece is not that host. A number, so it is ours."""
    match piece:
        case Attribute(target=Attribute(target=Name(name="call"), name="target") as target, name="host" | "aor"):
            pass
        case Attribute(target=Name(name="call") as call, name="domain"):
            target = Attribute(call, "target", False, piece.at, start=piece.start, end=piece.end, type=TARGET)
        case _:
            return None
    port = Attribute(target, "port", False, piece.at, start=piece.start, end=piece.end, type=NUMBER)
    return Encode(port, _port, start=piece.start, end=piece.end, type=TEXT)


def _port(number: Any) -> str:
    return "" if number is None else f":{number}"


def gateway_user(before: str, after: str, type: Type) -> Encoder:
    """A number at a gateway: the engine takes the user part and writes it into the gateway's own URI, once."""
    return encoders.AS_IS


def header(before: str, after: str, type: Type) -> Encoder:
    """A header value, of SIP or HTTP: one line, and inside of quotes, of `<…>` and of parameters what belongs there."""
    quotes = before.replace("\\\\", "").replace('\\"', "").count('"')
    if quotes % 2:
        return encoders.QUOTED
    opened, closed = before.rfind("<"), before.rfind(">")
    if opened > closed:
        uri, rest = before[opened + 1 :], after.partition(">")[0]
        return _sip_part(uri, rest, type) if _SCHEME.match(uri) else encoders.PARAMETER if uri else encoders.URI
    if "<" in after and opened < 0:
        return encoders.DISPLAY
    if closed >= 0 and ";" in before[closed:]:
        if "=" not in before.rpartition(";")[2]:
            raise Refused("the name of a header parameter", "write the name")
        return encoders.DISPLAY
    return encoders.LINE


def line(before: str, after: str, type: Type) -> Encoder:
    return encoders.LINE


# --- URLs -------------------------------------------------------------------------------------------------------------

_AUTHORITY = re.compile(rf"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+|{OUR}[^/?#:]*(?::[0-9]+)?)(?=[/?#])")


def url_behind(base: str) -> Rule:
    """A URL. `base` is what the endpoint puts in front of it, '' for nothing, `OUR` for what is known at run time."""

    def rule(before: str, after: str, type: Type) -> Encoder:
        start = _AUTHORITY.match(base + before)
        if start is None:
            what = "the scheme, host or port of a URL" if before or after or base else "a whole URL"
            raise Refused(what, "declare the address under endpoints:, and write / in front of what comes from outside")
        rest = (base + before)[start.end() :]
        return encoders.QUERY if "?" in rest or "#" in rest else encoders.SEGMENT

    return rule


_JSON_TYPE = re.compile(r"[^;]*[/+]json\s*(?:;|$)", re.IGNORECASE)
_FORM_TYPE = re.compile(r"application/x-www-form-urlencoded\s*(?:;|$)", re.IGNORECASE)
_PLAIN_TYPE = re.compile(r"text/plain\s*(?:;|$)", re.IGNORECASE)
_BODY_CURE = "write json: or form:, which encode it, or say headers: {Content-Type: text/plain}"


def web_body(content_type: str) -> Rule:
    """A body that is written as text: JSON and forms are encoded, where the flow says that it is plain text nothing
    has to be. `content_type` is the header as the flow writes it, '' for none; a body that begins as JSON is JSON."""

    def rule(before: str, after: str, type: Type) -> Encoder:
        if _PLAIN_TYPE.match(content_type):
            return encoders.AS_IS
        if _FORM_TYPE.match(content_type):
            if "=" not in before.rpartition("&")[2]:
                raise Refused("the name of a form value", _BODY_CURE)
            return encoders.QUERY
        if before and (_JSON_TYPE.match(content_type) or (not content_type and before.lstrip()[:1] in ("{", "["))):
            return encoders.JSON_STRING if _is_open_string(before) else encoders.JSON
        raise Refused("the body of a web request as it is", _BODY_CURE)

    return rule


def _is_open_string(json: str) -> bool:
    """Whether a JSON text ends inside of a string."""
    return re.sub(r"\\.", "", json, flags=re.DOTALL).count('"') % 2 == 1


# --- files, log, what is never from outside ---------------------------------------------------------------------------


def file_name(before: str, after: str, type: Type) -> Encoder:
    """A part of the name of a file: one segment of its path."""
    if not before and (not after or after.startswith(":")):
        raise Narrow("a whole path or the scheme of a stream", "write the folder in front of it", encoders.FILE)
    if re.search(r"://[^/]*$", before):
        raise Narrow("the host of a stream", "write the host", None)
    return encoders.FILE


def log(before: str, after: str, type: Type) -> Encoder:
    return encoders.LOG


def never(what: str, cure: str) -> Rule:
    """A place where only what is written or tested may stand."""

    def rule(before: str, after: str, type: Type) -> Encoder:
        raise Refused(what, cure)

    return rule
