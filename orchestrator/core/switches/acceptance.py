"""Whether FreeSWITCH servers take our calls: what their SIP side shows, beside their Event Socket.

A server is probed with OPTIONS (`core.probes`): one that does not answer has a wrong SIP address, is stalled or is
dead, and gets no new calls while another one does. FreeSWITCH answers OPTIONS whoever asks, so its access list is
asked for over the Event Socket, when the link comes up and after an INVITE that it refuses with 401, 403 or 407: the
profile at our port, and what its lists say about the address it has seen us at (`received` of our Via, RFC 3261
§18.2.1). Where it cannot be asked, the refused INVITE counts by itself, for `core.probes.HOLD` seconds or until it
takes a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from orchestrator.core.probes import Network, Peer, Prober
from orchestrator.core.settings import SERVER_TIMES, ServerTimes
from orchestrator.errors import MalformedMessage
from orchestrator.esl.profiles import ASK, Profile, profiles_of
from orchestrator.sip.message import Response
from orchestrator.sip.routing import port_of
from orchestrator.sip.uri import parse_uri

PATIENCE = 2.0
"""Seconds a server has to answer OPTIONS: it is sent three times meanwhile (timer E: 0, 0.5, 1.5 s). It is on the same
network, and so is two of them down within `probe` + 4 s."""

REFUSALS = (401, 403, 407)
"""Answers to an INVITE of ours that speak of us, not of whom we call."""

_REFUSED_OPTIONS = frozenset((*REFUSALS, 408, 503))

Heard = Callable[[str | None], None]
"""Told the output of an API command, None when there is none."""


class Acceptance:
    """The SIP sides of the servers of one engine, by name. `ask(server, command, heard)` runs an API command;
    `changed(server, takes calls, reason)` is told of changes."""

    def __init__(
        self,
        network: Network,
        ask: Callable[[str, str, Heard], None],
        changed: Callable[[str, bool, str], None],
    ) -> None:
        self.prober = Prober(network, changed, self._answered)
        self._ask = ask
        self._ports: dict[str, int] = {}
        self._looked: set[str] = set()
        """Servers whose access lists have been looked at, as far as possible, since their links came up."""

    def load(self, servers: Mapping[str, str], times: Mapping[str, ServerTimes]) -> None:
        """Watch these servers (name → SIP URI); those whose `probe` is 0 are judged by their links alone."""
        peers: dict[str, Peer] = {}
        for name, uri in servers.items():
            every = times.get(name, SERVER_TIMES).probe
            if not (uri and every):
                continue
            try:
                self._ports[name] = port_of(parse_uri(uri.encode()))
            except MalformedMessage:
                continue  # the configuration is checked; a test may give anything
            peers[name] = Peer(uri.encode(), every, _accepts, patience=PATIENCE, known=True)
        self._looked.intersection_update(peers)
        self.prober.watch(peers)

    # --- what is known ------------------------------------------------------------------------------------------------

    def takes_calls(self, server: str) -> bool:
        """Whether new calls should go there, as far as is known."""
        return self.prober.is_up(server)

    def answers(self, server: str) -> bool:
        """Whether its SIP side is known to answer."""
        return self.prober.state(server) in ("up", "refusing")

    def in_doubt(self, server: str) -> bool:
        """Whether that is being found out."""
        return self.prober.state(server) == "doubtful"

    def silence(self, server: str) -> str:
        """Why a call to it would be heard by nobody; '' where it may be heard."""
        return self.prober.reason(server) if self.prober.state(server) == "down" else ""

    def complaint(self, server: str) -> str:
        """Why it is not ready for calls; '' when it is."""
        state = self.prober.state(server)
        if state == "unknown":
            return "its SIP side has not answered OPTIONS yet"
        if state == "up" and server not in self._looked:
            return "its access lists have not been looked at yet"
        return self.prober.reason(server)

    # --- what links and calls show ------------------------------------------------------------------------------------

    def link_up(self, server: str) -> None:
        """Its Event Socket is there: now it can be asked."""
        self._looked.discard(server)
        self.prober.probe(server)

    def link_down(self, server: str) -> None:
        """Its Event Socket is gone: is its SIP side, too?"""
        self.prober.silent(server, "its Event Socket is gone, and it does not answer OPTIONS")

    def took(self, server: str) -> None:
        """It has taken a call."""
        self.prober.responded(server)

    def failed(self, server: str, status: int, response: Response | None) -> None:
        """It has not taken a call: `response` is what it said itself, None when it said nothing."""
        if response is None:
            self.silent(server, "a call to it timed out" if status == 408 else "it cannot be reached")
        elif status in REFUSALS:
            said = response.reason.decode("utf-8", "replace")[:60]
            self._look(server, f"it answers our INVITE with {status} {said}")
        else:
            self.took(server)

    def silent(self, server: str, reason: str) -> None:
        """It has given no response to a call."""
        self.prober.silent(server, reason)

    # --- its access lists ---------------------------------------------------------------------------------------------

    def _answered(self, server: str) -> None:
        if server not in self._looked or self.prober.state(server) == "refusing":
            self._look(server, "")

    def _look(self, server: str, refusal: str) -> None:
        """Ask for its profiles. `refusal`: what counts where that does not answer the question."""
        self._ask(server, ASK, partial(self._heard_profiles, server, refusal))

    def _heard_profiles(self, server: str, refusal: str, text: str | None) -> None:
        port = self._ports.get(server)
        found = [profile for profile in profiles_of(text or "") if profile.port == port]
        if len(found) != 1 or not found[0].certain or not self.prober.seen_as(server):
            self._conclude(server, None, refusal)
        elif not found[0].lists:
            self._conclude(server, not found[0].challenges, _refusal(found[0], self.prober.seen_as(server)))
        else:
            self._try_lists(server, refusal, found[0], 0)

    def _try_lists(self, server: str, refusal: str, profile: Profile, at: int) -> None:
        """Ask about one list after the other: one that allows us is enough."""
        address = self.prober.seen_as(server)

        def heard(text: str | None) -> None:
            answer = (text or "").strip()
            if answer not in ("true", "false"):
                self._conclude(server, None, refusal)
            elif answer == "true":
                self._conclude(server, True, "")
            elif at + 1 < len(profile.lists):
                self._try_lists(server, refusal, profile, at + 1)
            else:
                self._conclude(server, False, _refusal(profile, address))

        self._ask(server, f"acl {address} {profile.lists[at]}", heard)

    def _conclude(self, server: str, allowed: bool | None, refusal: str) -> None:
        self._looked.add(server)
        if allowed:
            self.prober.accepted(server)
        elif refusal:
            self.prober.refused(server, refusal)


def _accepts(status: int) -> bool:
    return status not in _REFUSED_OPTIONS


def _refusal(profile: Profile, address: str) -> str:
    lists = " or ".join(f'"{name}"' for name in profile.lists)
    if lists:
        what = "asks them for a password" if profile.challenges else "refuses them"
        where = f'apply-inbound-acl {lists} of its profile "{profile.name}"'
        return f"calls from {address} are not in {where}, which {what}"
    return f'its profile "{profile.name}" asks calls from {address} for a password (auth-calls)'
