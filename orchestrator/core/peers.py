"""The hosts that the configuration names, gateways and FreeSWITCH servers: they are believed where phones are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from orchestrator.core.node import Node
from orchestrator.sip.contact_guard import Allow, ContactGuard
from orchestrator.sip.location import Binding
from orchestrator.sip.points import Hop
from orchestrator.sip.uri import Uri


class Peers:
    """Those of one engine."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._network = node.network

    def load(self, gateways: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the gateways of a program and the servers of the site."""
        hidden = {name: str(known["uri"]) for name, known in gateways.items() if known.get("topology_hiding") == "on"}
        self._network.hide_from(hidden)
        told = {str(known["uri"]): known["identity"] == "trusted" for known in gateways.values() if "identity" in known}
        self._network.believe(told)
        self._network.know_peers(
            (*(str(gateway["uri"]) for gateway in gateways.values()), *self._node.site.freeswitch.values())
        )

    def are_at(self, host: str) -> bool:
        """Whether this is the address of one of them."""
        return self._network.is_peer(host)

    def have_name(self, name: bytes) -> bool:
        """Whether this is the host name of one of them, in lower case."""
        return self._network.names_peer(name)

    def exempt(self, host: str) -> bool:
        """Whether this source has no share of us: it is trusted, or one of them."""
        return self._network.trusts(host) or self.are_at(host)

    def contact_guard(self, allow: Allow | None) -> Callable[[Uri, str], bool] | None:
        """The guard of what untrusted phones register, None where there is none. Calls to their contacts go through it,
        too (`SipNetwork.guard`)."""
        network = self._network
        if allow is None:
            return None
        guard = ContactGuard(
            allow,
            network.is_own,
            network.is_ours,
            self.are_at,
            lambda name: network.is_domain(name) or self.have_name(name),
        )
        network.guard = partial(self._may_ring, guard)
        return lambda uri, host: not network.trusts(host) and guard.at_source(uri, host)

    def _may_ring(self, guard: ContactGuard, binding: Binding, hop: Hop) -> bool:
        """What the guard says to a registered contact that is to be rung; a refusal is counted and logged."""
        source, network = binding.source.removesuffix("/64"), self._network
        if network.trusts(source) or (not network.is_own_place(hop) and guard.may_ring(hop.host, source)):
            return True
        self._node.count("contact.refused")
        place = f"{hop.host}:{hop.port}"
        self._node.tell("contact_refused", source=source, aor=binding.aor, contact=binding.shown, to=place)
        return False
