"""A request that begins no call, and may be served by a flow: REGISTER, MESSAGE, OPTIONS and so on."""

from __future__ import annotations

from orchestrator.core.node import Node
from orchestrator.core.request_view import RequestView
from orchestrator.flow.run.run import Run
from orchestrator.sip.message import Request
from orchestrator.sip.server import ServerTransaction


class ServedRequest:
    """One such transaction, as the steps of a flow know it."""

    __slots__ = ("request", "server", "source", "view", "run", "_node")

    def __init__(
        self, node: Node, request: Request, view: RequestView, server: ServerTransaction, source: tuple[str, int]
    ) -> None:
        self.request = request
        self.server = server
        self.source = source
        self.view = view
        self.run: Run | None = None
        """Of the flow that serves it, if any."""
        self._node = node

    @property
    def user(self) -> str | None:
        """Who the sender is, as far as flows know."""
        return self.view.user

    @user.setter
    def user(self, name: str | None) -> None:
        self.view.user = name

    @property
    def attended(self) -> bool:
        """A server transaction that is no INVITE has a deadline of its own."""
        return True
