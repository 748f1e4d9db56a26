"""What the proxy needs of the network it lives in (`sip.network`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from orchestrator.sip import topology
from orchestrator.sip.layer import TransactionLayer
from orchestrator.sip.location import Binding
from orchestrator.sip.message import Message, Request
from orchestrator.sip.points import Hop, Point
from orchestrator.sip.session_timer import SessionTimer
from orchestrator.sip.tokens import Tokens
from orchestrator.sip.uri import Uri


class Network(ABC):
    """What a context needs of the engine it lives in."""

    layer: TransactionLayer
    tokens: Tokens
    veil: topology.Veil
    patience: float
    """Seconds that a server has for its first response while there are others to try."""
    session_timer: SessionTimer | None
    """Asks for session timers; None where nobody is asked."""
    count: Callable[[str], None]
    """Counts something by its name."""
    flow_failed: Callable[[Binding], None]
    """Told of a binding whose edge proxy has answered 430: there is no flow to that phone any more."""
    moved: Callable[[Hop, bytes], Hop]
    """Where a phone is now that was seen at a hop when its dialog began and has this Contact."""

    @abstractmethod
    def hides(self, gateway: str, source: str) -> bool:
        """Whether the topology is hidden between this source and where a request goes: this gateway, or '' for none."""

    @abstractmethod
    def withheld(self, message: Message, host: str) -> frozenset[bytes]:
        """Names (canonical) of headers that this receiver is not told: those that end here, and an identity that is to
        be kept from those we do not trust (RFC 3325 §7)."""

    @abstractmethod
    def record_routes(
        self, point: Point, request: Request, source: Hop, callee: Hop | None, gateway: str = ""
    ) -> tuple[bytes, ...]:
        """Our Record-Route for the dialogs of an INVITE that came from `source` and leaves by `point`: one header
        line, or two where these sides differ, the callee's first. `callee` is where it goes when that is not where its
        Request-URI leads."""

    @abstractmethod
    def resolve(
        self,
        uri: Uri,
        here: Point,
        found: Callable[..., None],
        source: str = "",
        by: Point | None = None,
        in_order: bool = False,
    ) -> None:
        """Find the next hop of a URI; `found` is called at once for an address literal, later for a name, with None on
        failure, and with the hops to try after the first where there are any (RFC 3263 §4). It leaves by the point `by`
        where the receiver is known to be reached from there, else by the one that leads there, by `here` where nothing
        says which. `source` is on whose behalf, for its share of look-ups; '' for nobody's. `in_order`: as the DNS has
        them, avoided or not."""

    @abstractmethod
    def avoid(self, hop: Hop, seconds: float | None = None) -> None:
        """A server gave no answer, or wants no requests for some seconds: others are tried before it for a while."""

    @abstractmethod
    def answers(self, hop: Hop) -> None:
        """A server has answered."""

    @abstractmethod
    def for_long(self, uri: Uri, hop: Hop, further: Sequence[Hop]) -> tuple[Hop, ...]:
        """Hops for a request that is too long for the datagram to this one (RFC 3261 §18.1.1), best first; `further`
        are what else there is."""

    @abstractmethod
    def is_own(self, uri: Uri) -> bool:
        """Whether this URI means us."""

    @abstractmethod
    def may_ring(self, binding: Binding, hop: Hop) -> bool:
        """Whether a request for a registered contact may go to this place (`sip.contact_guard`)."""
