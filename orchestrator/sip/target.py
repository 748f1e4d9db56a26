"""Where one branch of a proxied request goes, and what is different about the copy that goes there."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import MalformedMessage
from orchestrator.sip.contact import Contact
from orchestrator.sip.digest import Account
from orchestrator.sip.location import Binding
from orchestrator.sip.routing import DEFAULT_PORT
from orchestrator.sip.transaction import Destination
from orchestrator.sip.uri import Uri, parse_name_addr, parse_uri


class Target:
    """Request URI, Route values to put on it (Path, gateways), header lines to add.

    The next hop is `hop` when it is known, else that of the URI `toward`, of the first of `routes`, of the request URI.
    `account` answers a challenge of this target; `sender` is the value of From there, without a tag, where it is not
    the caller's; `ring` are the seconds it may ring where it has a time of its own. `binding` is the registration it
    stands for; a URI that somebody wrote down has none, whoever may have registered the same one.
    """

    __slots__ = ("uri", "routes", "hop", "toward", "headers", "label", "account", "sender", "ring", "binding")

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
        binding: Binding | None = None,
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
        self.binding = binding

    @property
    def contact(self) -> str:
        """The request URI as text; it remembers the binding, so that a flow can ring it again."""
        return self.uri.decode("utf-8", "replace") if self.binding is None else Contact(self.binding)

    def same_as(self, other: Target) -> bool:
        """Whether both are the same phone at the same place, which rings once.

        The place is where the request goes: two phones behind two NATs may well have the same private Contact. At one
        place the URI tells them apart, or else the instance (RFC 5626) within one address of record: a phone that has
        started anew may name itself differently.
        """
        if self._place != other._place:
            return False
        if self.uri == other.uri:
            return True
        mine, theirs = self.binding, other.binding
        if mine is None or theirs is None or mine.instance is None:
            return False
        return (mine.aor, mine.instance, mine.reg_id) == (theirs.aor, theirs.instance, theirs.reg_id)

    @property
    def _place(self) -> object:
        """Route values, host and port of the next hop."""
        if self.hop is not None:
            return (), self.hop[1].encode(), self.hop[2]
        try:
            toward = self.first_hop()
        except MalformedMessage:
            return self.uri
        return tuple(self.routes), toward.host.strip(b"[]").lower(), toward.port or DEFAULT_PORT

    @property
    def parsed(self) -> Uri:
        """The request URI. Raises MalformedMessage."""
        return parse_uri(self.uri)

    def first_hop(self) -> Uri:
        """The URI whose address is the next hop where `hop` is not known. Raises MalformedMessage."""
        if self.toward is not None:
            return self.toward
        return parse_name_addr(self.routes[0]).parsed if self.routes else self.parsed
