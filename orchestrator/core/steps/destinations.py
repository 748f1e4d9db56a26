"""What a flow names as destinations, made into targets: registered phones, gateways, contacts, URIs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.calls.replaced import ReplacedDialogs
from orchestrator.core.gateways import Gateways
from orchestrator.core.node import Node
from orchestrator.core.registrations import Registrations
from orchestrator.core.steps.calling_party import from_value
from orchestrator.core.steps.header_lines import header_lines
from orchestrator.core.steps.turns import grouped_by_q
from orchestrator.errors import MalformedMessage, StepError
from orchestrator.flow.run import effects
from orchestrator.flow.run.run import Run
from orchestrator.history import GatewayPassedOver
from orchestrator.sip.contact import Contact
from orchestrator.sip.message import Request
from orchestrator.sip.target import Target
from orchestrator.sip.uri import Uri, parse_uri

_SCHEME = re.compile(r"(?:sips?|tel):", re.IGNORECASE)


class Destinations:
    """Those of the flows of one engine."""

    def __init__(self, node: Node, registrations: Registrations, gateways: Gateways, replaced: ReplacedDialogs) -> None:
        self.replaced = replaced
        self._node = node
        self._registrations = registrations
        self._gateways = gateways

    def groups(self, run: Run, request: Request, effect: effects.Relay) -> list[list[Target]]:
        """Destinations of a request in the order they ring: each inner list at once."""
        targets = self._targets(run, request, effect)
        if effect.mode == "serial":
            return [[target] for target in targets]
        if effect.mode == "by_q":
            return grouped_by_q(targets)
        return [targets]

    def _targets(self, run: Run, request: Request, effect: effects.Relay) -> list[Target]:
        headers, sender = header_lines(effect.headers), from_value(effect.from_)
        if effect.gateways:
            targets = self.gateway_targets(effect.gateways, effect.number or request.parsed_uri, run)
        elif effect.registered or effect.aor:
            aor = effect.aor or self._node.network.aor(request.parsed_uri)
            targets = self.replaced.narrow(request, self._registrations.targets_for(request, aor))
        elif effect.original:
            targets = [Target(request.uri)]
        else:
            targets = [self.target_of(item) for item in effect.to]
        for target in targets:
            target.headers, target.sender = headers, sender
        return targets

    def is_for_all(self, request: Request) -> bool:
        """Whether a request to an address is for whoever is registered there."""
        return self._registrations.is_for_all(request)

    def gateway_targets(self, names: Sequence[str], dialled: Uri | str, run: Run) -> list[Target]:
        """The gateways that take calls now, as the program of the run knows them. Raises StepError."""
        gateways, known = self._gateways, run.program.resources.gateways
        usable = gateways.usable(names)
        for name in names:
            if name not in usable:
                run.trace(None, GatewayPassedOver(name, gateways.reason(name)))
        return [gateways.target(name, dialled, known) for name in usable]

    def target_of(self, item: Any) -> Target:
        """A destination a flow names: a contact as `lookup` and the events give it, or a URI (with or without `sip:`).

        A contact is its binding, and reached the way that registered: through its Path, or where it was seen behind
        NAT. A URI is only a URI, whoever may have registered the same one.
        """
        named = item["uri"] if isinstance(item, Mapping) else item
        if isinstance(named, Contact):
            return self._registrations.standing(named.binding)
        uri = str(named).strip()
        if _SCHEME.match(uri) is None:
            uri = "sip:" + uri
        try:
            parsed = parse_uri(uri.encode())
        except MalformedMessage as error:
            raise StepError("call.state", f"{uri!r} is not a destination: {error.reason}") from None
        return Target(bytes(parsed))

    def named(self, aor: str, items: Sequence[Any]) -> list[Target]:
        """The phones registered for `aor`, or where none is given what the items name."""
        return self._registrations.targets_of(aor) if aor else [self.target_of(item) for item in items]

    def rung_by(self, target: Target) -> Sequence[Target]:
        """A URI of a domain of ours stands for the phones registered for it, as it does for whoever dials it."""
        network, uri = self._node.network, parse_uri(target.uri)
        if target.hop is None and not target.routes and network.is_local(uri):
            return self._registrations.targets_of(network.aor(uri)) or [target]
        return [target]
