"""A server that was too slow: its request has gone to the next one, and what it says now comes too late (RFC 3263
§4.3)."""

from __future__ import annotations

from orchestrator.sip.branch import Branch, Context
from orchestrator.sip.client import ClientTransaction
from orchestrator.sip.layer import derive_request
from orchestrator.sip.message import Response
from orchestrator.sip.release import release


class Superseded:
    """Hears the INVITE that such a server has got: whoever rings is cancelled (RFC 3261 §9.1), who answers is hung
    up, so that no phone is left ringing or talking to nobody."""

    __slots__ = ("branch", "_cancelled")

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self._cancelled = False

    @property
    def context(self) -> Context:
        """What its request is a copy of: it may come back to us."""
        return self.branch.context

    def on_response(self, client: ClientTransaction, response: Response) -> None:
        network = self.branch.context.network
        if response.status < 200:
            if not self._cancelled:
                self._cancelled = True
                layer = network.layer
                layer.open_client(client.branch, b"CANCEL", derive_request(client.sent, b"CANCEL"),
                                  client.destination, None)  # fmt: skip
                client.start_end_timer(layer.times.timeout, "timer C")
        elif response.status < 300:
            release(network, self.branch, client, response)

    def on_timeout(self, client: ClientTransaction) -> None: ...
    def on_unreachable(self, client: ClientTransaction) -> None: ...

    def on_timer_c(self, client: ClientTransaction) -> None:
        client.step("abandon")
