"""What flows see of a REFER: `refer` of a flow `on: refer`, beside `request` (FLOWLANG §4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.node import Node
from orchestrator.core.request_view import AddressView, text
from orchestrator.errors import MalformedMessage
from orchestrator.sip.message import Request
from orchestrator.sip.network import SipNetwork
from orchestrator.sip.replaces import Replaces, bare_uri, parse_refer_to, parse_replaces, replaces_of
from orchestrator.sip.uri import NameAddr, Uri, parse_name_addr


class Asked:
    """What a REFER asks for. Raises MalformedMessage when it is made: Refer-To or what it replaces cannot be read."""

    __slots__ = ("to", "uri", "replaces", "replaces_value")

    def __init__(self, request: Request) -> None:
        if request.names.count(b"refer-to") > 1:
            raise MalformedMessage("More Than One Refer-To")
        self.to: NameAddr = parse_refer_to(request.get(b"refer-to"))
        self.uri: Uri = bare_uri(self.to.parsed)
        self.replaces_value: bytes | None = replaces_of(self.to.parsed)
        self.replaces: Replaces | None = None
        """The dialog that the new call takes the place of: an attended transfer."""
        if self.replaces_value is not None:
            self.replaces = parse_replaces(self.replaces_value)


class ReferView:
    """`refer`: whom to call, in place of which dialog, who says so, and which party of the call that is."""

    __slots__ = ("_network", "_request", "_asked", "_leg")

    def __init__(self, node: Node, request: Request, asked: Asked, leg: str) -> None:
        self._network = node.network
        self._request = request
        self._asked = asked
        self._leg = leg

    def __getitem__(self, name: str) -> Any:
        return _FIELDS[name](self)

    def __repr__(self) -> str:
        return f"<ReferView to {text(bytes(self._asked.uri))}>"


def _by(view: ReferView) -> AddressView:
    """Referred-By (RFC 3892), else From."""
    value = view._request.get(b"referred-by")
    try:
        address = parse_name_addr(value) if value else view._request.from_
        return _address(view._network, address, address.parsed)
    except MalformedMessage:
        return _address(view._network, view._request.from_, view._request.from_.parsed)


def _address(network: SipNetwork, address: NameAddr, uri: Uri) -> AddressView:
    return AddressView(network, uri, address.display)


_FIELDS: Mapping[str, Callable[[ReferView], Any]] = {
    "to": lambda view: _address(view._network, view._asked.to, view._asked.uri),
    "by": _by,
    "replaces": lambda view: None if view._asked.replaces_value is None else text(view._asked.replaces_value),
    "leg": lambda view: view._leg,
}
