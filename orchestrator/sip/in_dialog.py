"""Requests of our own inside dialogs that pass through us: the BYE of a call we end, the OPTIONS that asks whether a
phone is still there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.errors import MalformedMessage
from orchestrator.sip.challenges import CHALLENGES
from orchestrator.sip.client import ClientTransaction, ClientUser
from orchestrator.sip.dialog import Leg
from orchestrator.sip.message import Response
from orchestrator.sip.points import Hop
from orchestrator.sip.proxy_network import Network


class Challenged:
    """Hears what becomes of a request of our own to a gateway, and answers one challenge with our account there."""

    __slots__ = ("_network", "_leg", "_headers")

    def __init__(self, network: Network, leg: Leg, headers: tuple[bytes, ...]) -> None:
        self._network = network
        self._leg = leg
        self._headers = headers

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        account, known = self._leg.account, CHALLENGES.get(response.status)
        if account is None or known is None:
            return
        network = self._network
        word, branch = network.tokens.token(), network.tokens.branch()
        found = account.answer(response.get_all(known[0]), client.method, self._leg.target, word)
        if found is not None:
            via = client.destination.point.via + branch
            data = self._leg.request(client.method, via, (*self._headers, known[1] + found[0]))
            network.layer.open_client(branch, client.method, data, client.destination, None)

    def on_timeout(self, client: ClientTransaction) -> None: ...
    def on_unreachable(self, client: ClientTransaction) -> None: ...


class Persistent:
    """Hears of a request of our own for `user`. When the hop cannot be reached it goes on to the next one, or to where
    the Contact leads."""

    __slots__ = ("_user", "_go_on")

    def __init__(self, user: ClientUser | None, go_on: Callable[[], None]) -> None:
        self._user = user
        self._go_on = go_on

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        if self._user is not None:
            self._user.on_response(client, response)

    def on_timeout(self, client: ClientTransaction) -> None:
        if self._user is not None:
            self._user.on_timeout(client)

    def on_unreachable(self, client: ClientTransaction) -> None:
        self._go_on()


def send_in_dialog(
    network: Network,
    leg: Leg,
    method: bytes,
    unreachable: Callable[[], object],
    headers: tuple[bytes, ...] = (),
    user: ClientUser | None = None,
    counted: bool = True,
    body: bytes = b"",
) -> None:
    """Send a request to the party of `leg`; `user` hears of the answer, `unreachable()` is called where no way leads to
    it. Not `counted`: the request has the number of the last one."""
    seen, used = leg.hop, not counted
    if seen is not None:
        seen = network.moved(seen, leg.target)

    def send(hop: Hop | None, further: tuple[Hop, ...] = ()) -> None:
        nonlocal used
        if hop is None:
            unreachable()
            return
        branch = network.tokens.branch()
        data = leg.request(method, hop.point.via + branch, headers, not used, body)
        used = True
        heard = Challenged(network, leg, headers) if user is None and leg.account is not None else user
        if further or (hop is seen and hop.connection):
            heard = Persistent(heard, partial(send, further[0], further[1:]) if further else find)
        network.layer.open_client(branch, method, data, hop, heard)

    def find() -> None:
        try:
            network.resolve(leg.first_hop(), leg.point, send, by=leg.point)
        except MalformedMessage:
            unreachable()

    if seen is not None:
        send(seen)
    else:
        find()
