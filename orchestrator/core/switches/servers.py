"""FreeSWITCH servers as such: whether their links are up, how busy they are, and which one something new goes to."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core.node import Node
from orchestrator.core.switches.executions import HasChannels
from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent, integer


class Servers:
    """The FreeSWITCH servers of one engine, by name."""

    def __init__(self, node: Node) -> None:
        self.states: dict[str, str] = {}
        """State of each link: down, connecting, … up."""
        self.loads: dict[str, float] = {}
        """Share of its sessions that a server has in use, as its last HEARTBEAT says."""
        self._node = node
        self._told: dict[str, str] = {}  # what flows were told last

    def link_changed(self, server: str, state: str, reason: str) -> None:
        """Flows hear of `up`, and of the first `down` of an outage; the tries in between are nobody's business."""
        self.states[server] = state
        if state in ("up", "down") and self._told.get(server) != state:
            self._told[server] = state
            self._node.publish("fs.link", {"server": server, "state": state, "reason": reason or None})

    def observe(self, server: str, event: EslEvent) -> None:
        """Every FreeSWITCH event."""
        if event.name == "HEARTBEAT":
            before = self.loads.get(server, 0.0)
            sessions, most = integer(event.get("Session-Count")), max(1, integer(event.get("Max-Sessions")))
            load = self.loads[server] = sessions / most
            if load >= 1.0 > before:
                self._node.tell("freeswitch_full", server=server, sessions=sessions, most=most)
            elif load < 1.0 <= before:
                self._node.tell("freeswitch_has_room", server=server, sessions=sessions, most=most)

    def is_up(self, server: str) -> bool:
        """Whether its link is up, as far as anybody has said."""
        return self.states.get(server, "up") == "up"

    def is_gone(self, server: str) -> bool:
        """Nothing is heard from it: its link is down, and its SIP side is not known to answer."""
        return self.states.get(server, "up") != "up"

    def choose(self, names: Iterable[str]) -> str | None:
        """A server for something new: of those whose link is up the one that has least to do, the first among equals;
        one that is down only where none is up, so that the flow hears that it is."""
        known = list(names)
        up = [name for name in known if self.is_up(name)]
        return min(up or known, key=lambda name: self.loads.get(name, 0.0), default=None)

    def server_for(self, name: str, call: HasChannels | None) -> str:
        """The FreeSWITCH server a command goes to: the named one, the one that carries the call, else that which has
        least to do.

        Raises StepError `esl.down` when there is none.
        """
        if name:
            return name
        for channel in call.channels() if call is not None else ():
            return channel.server
        chosen = self.choose(self._node.site.freeswitch)
        if chosen is None:
            raise StepError("esl.down", "no FreeSWITCH server is configured")
        return chosen

    def sip_uri_of(self, server: str) -> str:
        """SIP URI of a server. Raises StepError `esl.down`."""
        uri = self._node.site.freeswitch.get(server)
        if not uri:
            raise StepError("esl.down", f"FreeSWITCH server {server!r} has no SIP address (key 'sip')")
        return uri
