"""Where one branch of a proxied request goes, and what is different about the copy that goes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from orchestrator.errors import MalformedMessage
from orchestrator.native import mypyc_attr
from orchestrator.sip.contact import Contact
from orchestrator.sip.digest import Account
from orchestrator.sip.location import Binding
from orchestrator.sip.message import Request
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.routing import is_private, port_of, unicast
from orchestrator.sip.uri import Uri, parse_known_uri, parse_name_addr


class Renumbering(NamedTuple):
    """What is added to the CSeq of a request, and to that of the INVITE that its RAck names (RFC 3262 §7.2)."""

    cseq: int
    rack: int

    def lines(self, request: Request) -> tuple[bytes, ...]:
        """The header lines of the request that name numbers, as they go on."""
        cseq = b"CSeq: %d %b" % (request.cseq + self.cseq, request.method)
        rack = (request.get(b"rack") or b"").split()
        if len(rack) != 3 or not rack[1].isdigit():
            return (cseq,)
        return cseq, b"RAck: %b %d %b" % (rack[0], int(rack[1][:10]) + self.rack, rack[2])


NUMBERED: Final = frozenset((b"cseq", b"rack"))
"""The headers that these lines replace."""


@mypyc_attr(acyclic=True)
class Target:
    """Request URI, Route values to put on it (Path, gateways), header lines to add.

    The next hop is `hop` when it is known, else that of the URI `toward`, of the first of `routes`, of the request URI.
    `account` answers a challenge of this target; `sender` is the value of From there, without a tag, where it is not
    the caller's; `ring` are the seconds it may ring where it has a time of its own. `binding` is the registration it
    stands for; a URI that somebody wrote down has none, whoever may have registered the same one. `point` is the one of
    ours that leads to it, where that is known.
    `numbers` is how the request is numbered where that is not as it came (`core.calls.numbering`). `flows` are other
    ways to the same phone, which are not used at the same time (RFC 5626 §6).
    """

    __slots__ = (
        "uri", "routes", "hop", "toward", "headers", "label", "account", "sender", "ring", "binding", "point",
        "numbers", "hides", "flows", "_contact",
    )  # fmt: skip

    def __init__(
        self,
        uri: bytes,
        routes: Sequence[bytes] = (),
        hop: Hop | None = None,
        toward: Uri | None = None,
        headers: Sequence[bytes] = (),
        label: str = "",
        account: Account | None = None,
        sender: bytes = b"",
        binding: Binding | None = None,
        point: Point | None = None,
    ) -> None:
        self.hides = False
        """It is in a dialog whose topology is hidden."""
        self.uri = uri
        self.routes = routes
        self.hop = hop
        self.toward = toward
        self.headers = headers
        self.label = label
        self.account = account
        self.sender = sender
        self.ring: float | None = None
        self.flows: tuple[Target, ...] = ()
        self.numbers: Renumbering | None = None
        self.binding = binding
        self.point = point
        self._contact: str | None = None

    def is_flow_of(self, other: Target) -> bool:
        """Whether both are flows of one phone: the same instance of the same address, registered twice."""
        mine, theirs = self.binding, other.binding
        if mine is None or theirs is None or mine.instance is None or mine.reg_id is None or theirs.reg_id is None:
            return False
        return (mine.aor, mine.instance) == (theirs.aor, theirs.instance) and mine.reg_id != theirs.reg_id

    def next_flow(self) -> Target | None:
        """The next way to the same phone, for the request as it went this way; None when there is none left."""
        if not self.flows:
            return None
        found = self.flows[0]
        found.flows = self.flows[1:]
        found.headers, found.label, found.sender = self.headers, self.label, self.sender
        found.account, found.ring, found.numbers = self.account, self.ring, self.numbers
        return found

    @property
    def contact(self) -> str:
        """The request URI as text; it remembers the binding, so that a flow can ring it again."""
        contact = self._contact
        if contact is None:
            binding = self.binding
            contact = self._contact = self.uri.decode("utf-8", "replace") if binding is None else Contact(binding)
        return contact

    def same_as(self, other: Target) -> bool:
        """Whether both are the same phone at the same place, which rings once.

        The place is where the request goes: two phones behind two NATs may well have the same private Contact. At one
        place the URI tells them apart, or else the instance (RFC 5626) within one address of record: a phone that has
        started anew may name itself differently.
        """
        if self._place != other._place or self._in_another_network(other):
            return False
        if self.uri == other.uri:
            return True
        mine, theirs = self.binding, other.binding
        if mine is None or theirs is None or mine.instance is None:
            return False
        return (mine.aor, mine.instance, mine.reg_id) == (theirs.aor, theirs.instance, theirs.reg_id)

    def _in_another_network(self, other: Target) -> bool:
        """Whether the one place is two: a private address that is reached from two networks of ours."""
        mine, theirs = self.hop.point if self.hop else self.point, other.hop.point if other.hop else other.point
        if mine is None or theirs is None or mine.network == theirs.network:
            return False
        host = self.hop.host if self.hop is not None else unicast(self.first_hop().host)
        return host is not None and is_private(host)

    @property
    def _place(self) -> object:
        """Route values, host and port of the next hop."""
        if self.hop is not None:
            return (), self.hop.host.encode(), self.hop.port
        try:
            toward = self.first_hop()
        except MalformedMessage:
            return self.uri
        return tuple(self.routes), toward.host.strip(b"[]").lower(), port_of(toward)

    @property
    def parsed(self) -> Uri:
        """The request URI. Raises MalformedMessage."""
        return parse_known_uri(self.uri)

    def first_hop(self) -> Uri:
        """The URI whose address is the next hop where `hop` is not known. Raises MalformedMessage."""
        if self.toward is not None:
            return self.toward
        return parse_name_addr(self.routes[0]).parsed if self.routes else self.parsed


def one_flow_each(targets: Sequence[Target]) -> list[Target]:
    """The targets with one flow for each phone, the others of it behind that (RFC 5626 §6)."""
    kept: list[Target] = []
    for target in targets:
        first = next((known for known in kept if known.is_flow_of(target)), None)
        if first is None:
            kept.append(target)
        else:
            first.flows += (target,)
    return kept
