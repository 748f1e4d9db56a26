"""The hosts that the configuration names, gateways and FreeSWITCH servers: they are believed where phones are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.network import SipNetwork
from orchestrator.sip.contact_guard import Allow, ContactGuard
from orchestrator.sip.uri import Uri


class Peers:
    """Those of one engine. `servers`: name of a FreeSWITCH server → its SIP URI, which may change."""

    def __init__(self, network: SipNetwork, servers: Mapping[str, str]) -> None:
        self._network = network
        self._servers = servers
        self._gateways: tuple[str, ...] = ()

    def load(self, gateways: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the gateways of a program."""
        self._gateways = tuple(str(gateway["uri"]) for gateway in gateways.values())
        self._network.knows_names(self.uris)

    @property
    def uris(self) -> tuple[str, ...]:
        return (*self._gateways, *self._servers.values())

    def are_at(self, host: str) -> bool:
        """Whether this is the address of one of them."""
        return self._network.is_at(host, self.uris)

    def exempt(self, host: str) -> bool:
        """Whether this source has no share of us: it is trusted, or one of them."""
        return self._network.trusts(host) or self.are_at(host)

    def contact_guard(self, allow: Allow | None) -> Callable[[Uri, str], bool] | None:
        """The guard of what untrusted phones register, None where there is none."""
        network = self._network
        if allow is None:
            return None
        guard = ContactGuard(
            allow,
            network.is_own,
            network.is_ours,
            self.are_at,
            lambda name: network.is_domain(name) or network.names_one(name, self.uris),
        )
        return lambda uri, host: not network.trusts(host) and guard.at_source(uri, host)
