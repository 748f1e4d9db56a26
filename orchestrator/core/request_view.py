"""What flows see of a request: a mapping with the fields of `language.context`, each made when it is asked for.

Nothing that can be read again from the request is kept. Octets become text here, as UTF-8 with replacement characters,
so that nothing a stranger sends can fail in a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.core.node import Node
from orchestrator.sip.message import Request
from orchestrator.sip.network import SipNetwork
from orchestrator.sip.uri import Uri


def text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


class RequestView:
    """`request` of a flow `on: register`, `on: message` and so on."""

    __slots__ = ("_network", "_request", "_source", "_began", "user")

    def __init__(self, node: Node, request: Request, source: tuple[str, int]) -> None:
        self._network = node.network
        self._request = request
        self._source = source
        self._began = node.wall
        self.user: str | None = node.network.user_of(request, source[0])
        """Whom `auth` has found the sender to be, or a trusted source says he is."""

    def __getitem__(self, name: str) -> Any:
        return FIELDS[name](self)

    def address(self, uri: Uri, display: bytes = b"") -> AddressView:
        return AddressView(self._network, uri, display)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {text(self._request.method)} {text(self._request.uri)}>"


class AddressView(Mapping[str, Any]):
    """An address of a request, its parts as text."""

    __slots__ = ("display", "network", "uri")

    def __init__(self, network: SipNetwork, uri: Uri, display: bytes) -> None:
        self.network = network
        self.uri = uri
        self.display = display

    def __getitem__(self, name: str) -> Any:
        return _PARTS[name](self)

    def __iter__(self) -> Iterator[str]:
        return iter(_PARTS)

    def __len__(self) -> int:
        return len(_PARTS)

    def __repr__(self) -> str:
        return f"<AddressView {text(bytes(self.uri))}>"


class EndView(Mapping[str, Any]):
    """From or To of a request, which were found well-formed when it came. Most who ask want its address of record."""

    __slots__ = ("header", "network", "request")

    def __init__(self, network: SipNetwork, request: Request, header: bytes) -> None:
        self.network = network
        self.request = request
        self.header = header

    def __getitem__(self, name: str) -> Any:
        if name == "aor":
            return self.network.aor_of(self.request, self.header)
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_PARTS)

    def __len__(self) -> int:
        return len(_PARTS)

    def __repr__(self) -> str:
        return repr(self._parsed())

    def _parsed(self) -> AddressView:
        address = self.request.from_ if self.header == b"from" else self.request.to
        return AddressView(self.network, address.parsed, address.display)


class HeaderView(Mapping[str, str]):
    """Header values of a request by name in any case; several lines are one list, as RFC 3261 §7.3.1 reads them."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def __getitem__(self, name: str) -> str:
        values = self._request.get_all(name.lower().encode())
        if not values:
            raise KeyError(name)
        return text(b", ".join(values))

    def __iter__(self) -> Iterator[str]:
        return (text(name) for name in dict.fromkeys(self._request.names))

    def __len__(self) -> int:
        return len(set(self._request.names))


def _unescaped_user(uri: Uri) -> bytes:
    if uri.is_sip:
        return uri.aor.rpartition("@")[0].encode() if uri.user else b""
    return uri.opaque.split(b";")[0]  # tel:+4930…


def _header(view: RequestView, name: bytes) -> str | None:
    value = view._request.get(name)
    return None if value is None else text(value)


_PARTS: Mapping[str, Callable[[AddressView], Any]] = {
    "uri": lambda view: text(bytes(view.uri)),
    "scheme": lambda view: text(view.uri.scheme).lower(),
    "user": lambda view: text(_unescaped_user(view.uri)),
    "host": lambda view: text(view.uri.host).lower(),
    "port": lambda view: view.uri.port,
    "aor": lambda view: view.network.aor(view.uri),
    "display": lambda view: text(view.display),
}

FIELDS: Mapping[str, Callable[[RequestView], Any]] = {
    "id": lambda view: text(view._request.call_id),
    "sip_call_id": lambda view: text(view._request.call_id),
    "method": lambda view: text(view._request.method),
    "aor": lambda view: view._network.aor_of(view._request, b"to"),
    "from": lambda view: EndView(view._network, view._request, b"from"),
    "to": lambda view: EndView(view._network, view._request, b"to"),
    "target": lambda view: view.address(view._request.parsed_uri),
    "domain": lambda view: text(view._request.parsed_uri.host).lower(),
    "headers": lambda view: HeaderView(view._request),
    "content_type": lambda view: _header(view, b"content-type"),
    "body": lambda view: text(view._request.body),
    "user_agent": lambda view: _header(view, b"user-agent"),
    "expires": lambda view: view._request.expires,
    "contacts": lambda view: [text(contact.uri or b"*") for contact in view._request.contacts()],
    "source_ip": lambda view: view._source[0],
    "source_port": lambda view: view._source[1],
    "transport": lambda view: text(view._request.via.transport).lower(),
    "started_at": lambda view: int(view._began),
    "user": lambda view: view.user,
}
