"""Gateways to other networks: which of them take calls now, and how a number is called there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.core.probes import Network, Peer, Prober
from orchestrator.errors import StepError
from orchestrator.flow.language.encoders import escape_user
from orchestrator.sip.digest import Account
from orchestrator.sip.grammar import read_number, unescape
from orchestrator.sip.message import Response
from orchestrator.sip.target import Target
from orchestrator.sip.uri import Uri, parse_uri

DISABLED = "disabled by an operator"

SILENCE = 4.0
"""Seconds a gateway must have had for its first response before its silence says anything about it."""

Known = Mapping[str, Mapping[str, Any]]
"""Name → what the program says about a gateway: uri, user, password, realm, strip, prefix, number, probe."""

_seconds = re.compile(rb"[0-9]+").match


class Gateways:
    """The gateways of one engine. `publish` tells flows."""

    def __init__(self, network: Network, publish: Callable[[str, dict[str, Any]], object]) -> None:
        self._publish = publish
        self._known: Known = {}
        self.disabled: set[str] = set()
        """Those that an operator has taken out: they are not tried until he puts them back, or we start again."""
        self.prober = Prober(network, self._changed)

    def load(self, known: Known) -> None:
        """Watch the gateways of a program. Those without `probe` are judged by calls alone."""
        self._known = known
        self.disabled.intersection_update(known)
        self.prober.watch(
            {name: Peer(_base(gateway, b""), float(gateway.get("probe") or 0.0)) for name, gateway in known.items()}
        )

    def usable(self, names: Sequence[str]) -> Sequence[str]:
        """Those of `names` that are up, in order; all of them when none is, since one of them may be back. Never one
        that is disabled."""
        if self.disabled:
            names = [name for name in names if name not in self.disabled]
        return [name for name in names if self.prober.is_up(name)] or names

    def is_up(self, name: str) -> bool:
        """Whether calls are sent there while others are to be had."""
        return name not in self.disabled and self.prober.is_up(name)

    def reason(self, name: str) -> str:
        """Why it is not tried; '' while it is up."""
        return DISABLED if name in self.disabled else self.prober.reason(name)

    def states(self) -> dict[str, bool]:
        """Name → is up, of those that are watched."""
        return {name: up and name not in self.disabled for name, up in self.prober.states().items()}

    def disable(self, name: str) -> None:
        """Try it no more until `enable`. Idempotent."""
        if name in self._known and name not in self.disabled:
            was_up = self.prober.is_up(name)
            self.disabled.add(name)
            if was_up:
                self._publish("gateway_down", {"gateway": name, "reason": DISABLED})

    def enable(self, name: str) -> None:
        """Try it again, as far as it is there. Idempotent."""
        if name in self.disabled:
            self.disabled.remove(name)
            if self.prober.is_up(name):
                self._publish("gateway_up", {"gateway": name, "reason": "enabled by an operator"})

    def target(self, name: str, dialled: Uri | str, known: Known) -> Target:
        """How `dialled` (a Request-URI, or a number a flow gives) is called at a gateway, with our account there.

        Raises StepError: the rules of the gateway leave no number.
        """
        gateway = known[name]
        return Target(_base(gateway, _number(name, gateway, dialled)), label=name, account=_account(gateway))

    def account_beyond(self, is_for: Callable[[str, Uri], bool]) -> Account | None:
        """Our account at the gateway that a request inside a dialog goes to: `is_for(name, URI)` says which that is."""
        for name, gateway in self._known.items():
            if is_for(name, parse_uri(_base(gateway, b""))):
                return _account(gateway)
        return None

    # --- what calls show ----------------------------------------------------------------------------------------------

    def failed(self, name: str, status: int, response: Response | None) -> None:
        """A call to a gateway has failed: `response` is what it said, None when it said nothing."""
        if response is None:
            self.silent(name, "a call to it timed out" if status == 408 else "it cannot be reached")
            return
        after = response.get(b"retry-after") if status == 503 else None
        seconds = _seconds(after) if after else None
        if seconds is not None and read_number(seconds[0]):
            self.prober.retry_after(name, float(read_number(seconds[0]) or 0))
        else:
            self.prober.responded(name)

    def answered(self, name: str) -> None:
        """A call to a gateway was answered."""
        self.prober.responded(name)

    def silent(self, name: str, reason: str) -> None:
        """A gateway has given no response to a call."""
        self.prober.silent(name, reason)

    def _changed(self, name: str, up: bool, reason: str) -> None:
        if name in self.disabled:
            return  # it is down for those who are told, and stays so
        self._publish("gateway_up" if up else "gateway_down", {"gateway": name, "reason": reason})


def _account(gateway: Mapping[str, Any]) -> Account | None:
    user, password = gateway.get("user"), gateway.get("password")
    return Account(user, password, gateway.get("realm") or "") if user and isinstance(password, str) else None


def _base(gateway: Mapping[str, Any], user: bytes) -> bytes:
    """The URI of a gateway with this user part. One of the URI itself is refused when flows are loaded."""
    scheme, _, rest = str(gateway["uri"]).partition(":")
    return f"{scheme}:".encode() + (user + b"@" if user else b"") + rest.rpartition("@")[2].encode()


def _number(name: str, gateway: Mapping[str, Any], dialled: Uri | str) -> bytes:
    """The user part for a gateway: the dialled one as it came, unless a rule of the gateway changes it."""
    rule, strip, prefix = gateway.get("number"), int(gateway.get("strip") or 0), str(gateway.get("prefix") or "")
    if isinstance(dialled, Uri):
        as_it_came = dialled.user if dialled.is_sip else dialled.opaque.partition(b";")[0]
        if rule is None and not strip and not prefix:
            return as_it_came
        number = unescape(as_it_came).decode("utf-8", "surrogateescape")
    else:
        number = dialled
    found = str(rule.evaluate({"number": number})) if rule is not None else prefix + number[strip:]
    if not found and number:
        raise StepError("call.state", f"gateway {name} leaves no number of {number!r} to call")
    return escape_user(found, "surrogateescape").encode()  # octets that are no UTF-8 stay what they were
