"""Where one branch of a proxied request goes, and what is different about the copy that goes there."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.sip.digest import Account
from orchestrator.sip.transaction import Destination
from orchestrator.sip.uri import Uri, parse_name_addr, parse_uri


class Target:
    """Request URI, Route values to put on it (Path, gateways), header lines to add.

    The next hop is `hop` when it is known, else that of the URI `toward`, of the first of `routes`, of the request URI.
    `account` answers a challenge of this target, `sender` is the URI that From shows there instead of the caller's,
    `ring` are the seconds it may ring where it has a time of its own.
    """

    __slots__ = ("uri", "routes", "hop", "toward", "headers", "label", "account", "sender", "ring")

    def __init__(
        self,
        uri: bytes,
        routes: Sequence[bytes] = (),
        hop: Destination | None = None,
        toward: Uri | None = None,
        headers: Sequence[bytes] = (),
        label: str = "",
        account: Account | None = None,
        sender: bytes = b"",
    ) -> None:
        self.uri = uri
        self.routes = routes
        self.hop = hop
        self.toward = toward
        self.headers = headers
        self.label = label
        self.account = account
        self.sender = sender
        self.ring: float | None = None

    @property
    def contact(self) -> str:
        return self.uri.decode("utf-8", "replace")

    @property
    def parsed(self) -> Uri:
        """The request URI. Raises MalformedMessage."""
        return parse_uri(self.uri)

    def first_hop(self) -> Uri:
        """The URI whose address is the next hop where `hop` is not known. Raises MalformedMessage."""
        if self.toward is not None:
            return self.toward
        return parse_name_addr(self.routes[0]).parsed if self.routes else self.parsed
