"""FreeSWITCH servers as such: whether their links are up, how busy they are, and which one something new goes to.

A server has two sides: its link, and its SIP, which `acceptance` watches. Something new goes where both are there. A
call that goes through a server ends when both have been gone for `lost_after`; one that waits for commands, when the
link has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.core.node import Node
from orchestrator.core.switches.acceptance import Acceptance, Heard
from orchestrator.core.switches.executions import HasChannels
from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent, integer
from orchestrator.flow.run.effects import EslCommand


class Servers:
    """The FreeSWITCH servers of one engine, by name."""

    def __init__(self, node: Node) -> None:
        self.states: dict[str, str] = {}
        """State of each link: down, connecting, … up."""
        self.loads: dict[str, float] = {}
        """Share of its sessions that a server has in use, as its last HEARTBEAT says."""
        self.acceptance = Acceptance(node.network, self._ask_api, self._acceptance_changed)
        self._node = node
        self._told: dict[str, str] = {}  # what flows were told last

    def link_changed(self, server: str, state: str, reason: str) -> None:
        """Flows hear of `up`, and of the first `down` of an outage; the tries in between are nobody's business."""
        before, self.states[server] = self.states.get(server, ""), state
        if before == "up" != state:
            self.acceptance.link_down(server)
        elif state == "up" != before:
            self.acceptance.link_up(server)
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
        return not self.is_up(server) and not self.acceptance.answers(server)

    def complaint(self, server: str) -> str:
        """Why its SIP side is not ready for calls; '' when it is."""
        return self.acceptance.complaint(server)

    def choose(self, names: Iterable[str]) -> str | None:
        """A server for something new: of those whose link is up and whose SIP side takes calls the one that has least
        to do, the first among equals; another one only where there is none, so that the flow hears that it is down."""
        known = list(names)
        up = [name for name in known if self.is_up(name)]
        ready = [name for name in up if self.acceptance.takes_calls(name)]
        return min(ready or up or known, key=lambda name: self.loads.get(name, 0.0), default=None)

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

    def _acceptance_changed(self, server: str, takes_calls: bool, reason: str) -> None:
        event = "freeswitch_takes_calls" if takes_calls else "freeswitch_takes_no_calls"
        self._node.count(event.replace("_", ".", 1))
        self._node.tell(event, server=server, reason=reason)

    def _ask_api(self, server: str, command: str, heard: Heard) -> None:
        """Run an API command of our own."""

        def told(result: Any) -> None:
            heard(None if isinstance(result, StepError) else result["text"])

        self._node.job(EslCommand("api", command, server), told)
