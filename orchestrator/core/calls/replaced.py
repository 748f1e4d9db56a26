"""INVITEs with Replaces (RFC 3891): to the phone that has the dialog, as far as we know whose it is.

An address may have several phones, and only one has the dialog; the others would refuse (481), or ring where they do
not know Replaces. The calls of flows are known by their dialogs. What is known of no dialog goes to all phones, as any
call does.
"""

from __future__ import annotations

from orchestrator.core.calls.call import Call, CallTable
from orchestrator.core.phones import leads_to
from orchestrator.errors import MalformedMessage
from orchestrator.sip.dialog import Leg
from orchestrator.sip.message import Request
from orchestrator.sip.network import SipNetwork
from orchestrator.sip.points import Hop
from orchestrator.sip.replaces import Replaces, parse_replaces
from orchestrator.sip.routing import port_of
from orchestrator.sip.target import Target


class ReplacedDialogs:
    """Finds the dialogs of one engine's calls that INVITEs want to replace."""

    def __init__(self, network: SipNetwork, calls: CallTable) -> None:
        self._network = network
        self._calls = calls

    def narrow(self, request: Request, targets: list[Target]) -> list[Target]:
        """The destinations of a request that have the dialog it replaces; all of them where that is not known."""
        if not request.has(b"replaces"):
            return targets
        dialog = _read(request)
        return targets if dialog is None else self.holders(dialog, targets)

    def holders(self, dialog: Replaces, targets: list[Target]) -> list[Target]:
        """Those of some destinations that have a dialog; all of them where that is not known."""
        leg = self._leg(dialog)
        if leg is None:
            return targets
        return [target for target in targets if self._has(target, leg)] or targets

    def phone_at(self, request: Request) -> Target | None:
        """The phone whose Contact is the Request-URI, if it has the dialog that the INVITE replaces: a phone that
        transfers to a call may name it so (RFC 5589 §7.3)."""
        dialog = _read(request) if request.has(b"replaces") else None
        leg = self._leg(dialog) if dialog is not None else None
        if leg is None or leg.target != request.uri:
            return None
        return Target(leg.target, leg.routes, leg.hop, point=leg.point)

    def _leg(self, dialog: Replaces) -> Leg | None:
        call = self._calls.by_call_id(dialog.call_id)
        if not isinstance(call, Call):
            return None
        side = call.dialogs.party_with(dialog.call_id, dialog.local_tag, dialog.remote_tag)
        return None if side is None else call.dialogs.leg_at(dialog.call_id, side, call.carried, call.placed)

    def _has(self, target: Target, leg: Leg) -> bool:
        """Whether a registered phone is the one at the other end of a dialog: its Contact may be another one there, its
        place is the same."""
        if target.uri == leg.target:
            return True
        if leg.seen is not None:
            return leads_to(target, leg.seen)
        try:
            uri = leg.first_hop()
        except MalformedMessage:
            return False
        host = uri.host.strip(b"[]").decode("ascii", "replace")
        return not leg.routes and leads_to(target, Hop(leg.point, host, port_of(uri)))


def _read(request: Request) -> Replaces | None:
    try:
        return parse_replaces(request.get(b"replaces") or b"")
    except MalformedMessage:  # the phone says so
        return None
