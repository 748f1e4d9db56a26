"""Ending a call that was answered after its caller had gone (RFC 3261 §16.7 step 5; DEPARTURES of the proxy)."""

from __future__ import annotations

from orchestrator.errors import MalformedMessage
from orchestrator.sip.branch import Branch
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.dialog import Leg, callee_leg
from orchestrator.sip.message import Response
from orchestrator.sip.points import Hop
from orchestrator.sip.proxy_network import Network

COMPLETED_ELSEWHERE = b'Reason: SIP;cause=200;text="Call completed elsewhere"'
"""RFC 3326: tells the phone that the call is not to be listed as missed."""

MAX_DIALOGS = 60
"""Dialogs of one branch that are ended: a proxy below us may fork, and answer for ever."""


def release(
    network: Network, branch: Branch, client: ClientTransaction, response: Response, hang_up: bool = True
) -> None:
    """End a call that was answered after its caller had gone: ACK and BYE to the callee, from us (§16.7 step 5;
    DEPARTURES). `client` is the transaction of the INVITE.

    A repeated 2xx is only acknowledged again, and so is that of a re-INVITE (`hang_up` false): its dialog stands.
    """
    if len(branch.ended) >= MAX_DIALOGS:
        return
    hang_up = hang_up and response.to_tag not in branch.ended
    if hang_up:
        branch.ended += (response.to_tag,)
    leg, hop = _leg_of(network, branch, client.destination, response)
    layer, tokens = network.layer, network.tokens

    def send(hop: Hop | None, further: tuple[Hop, ...] = ()) -> None:
        if hop is None:
            return
        layer.send(leg.request(b"ACK", hop.point.via + tokens.branch()), hop)
        if hang_up:
            bye_branch = tokens.branch()
            bye = leg.request(b"BYE", hop.point.via + bye_branch, (COMPLETED_ELSEWHERE,))
            layer.open_client(bye_branch, b"BYE", bye, hop, None)

    if hop is not None:
        send(hop)
    else:
        network.resolve(leg.first_hop(), leg.point, send, by=leg.point)


def _leg_of(network: Network, branch: Branch, sent_to: Hop, response: Response) -> tuple[Leg, Hop | None]:
    """The callee of a late 2xx, and the next hop when that is where the INVITE went rather than where its Contact
    leads.

    It is where the Contact is of no use: behind NAT, or because there is none that can be read.
    """
    try:
        leg = callee_leg(response, network.is_own, sent_to.point, branch.target.hop)
    except MalformedMessage:
        leg = None
    if leg is not None:
        return leg, leg.hop
    sender, receiver = response.get(b"from") or b"", response.get(b"to") or b""
    return Leg(response.call_id, sender, receiver, branch.target.uri, (), response.cseq, sent_to.point), sent_to
