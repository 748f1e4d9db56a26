"""What is said to CGRateS about a charged call, and what its answers mean.

Flags and an `Event`, as 0.10, 0.11 and OpenSIPS have it (`SessionSv1.*`), and the options that 1.0 reads instead.
`Usage` goes out as text with a unit (`20s`), `MaxUsage` comes in nanoseconds, as a number or as text; from methods
whose names end in `WithDigest` in seconds. −1 and no `MaxUsage` at all mean no limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.flow.run.charging import Authorise, Charged, Report

METHODS: Mapping[str, tuple[str, str, str]] = {
    "authorise": ("SessionSv1.AuthorizeEvent", "GetMaxUsage", "*maxUsage"),
    "open": ("SessionSv1.InitiateSession", "InitSession", "*initiate"),
    "update": ("SessionSv1.UpdateSession", "UpdateSession", "*update"),
    "close": ("SessionSv1.TerminateSession", "TerminateSession", "*terminate"),
    "record": ("SessionSv1.ProcessCDR", "", "*cdrs"),
}
"""What is asked → the method, the flag that says what of it is wanted, and the same as an option, for 1.0."""

SYNC = "SessionSv1.SyncSessions"
"""Has CGRateS ask its clients for their sessions now, and end those that nobody has."""

NANOSECONDS = 1_000_000_000
LONGEST_USAGE = 1e10
"""Seconds: more than the largest number of nanoseconds of CGRateS (2**63) stands for. No timer is set for what is
beyond."""
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|ns)")


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who speaks to CGRateS: what stands in all requests."""

    host: str
    """`OriginHost`."""
    tenant: str = ""
    """For calls whose flow names none; '' for the domain that was called."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Put into each `Event`."""
    options: Mapping[str, str] = field(default_factory=dict)
    """`APIOpts`."""
    flags: tuple[str, ...] = ()
    """Set besides ours when a session is authorised and opened."""

    def authorise(self, effect: Authorise) -> tuple[str, dict[str, Any]]:
        """Method and parameter of a request."""
        return self._request("authorise", effect.charged, "authorise", {"Usage": span(effect.usage)})

    def report(self, effect: Report) -> tuple[str, dict[str, Any]]:
        event = {
            "AnswerTime": moment(effect.answered),
            "Usage": span(effect.usage),
            "DisconnectCause": effect.cause or None,
        }
        return self._request(effect.what, effect.charged, f"{effect.what}-{effect.number}", event)

    def _request(self, what: str, charged: Charged, id: str, event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        method, flag, option = METHODS[what]
        asked: dict[str, Any] = {flag: True} if flag else {}
        if what in ("authorise", "open"):
            asked.update(dict.fromkeys(self.flags, True))
        asked["Tenant"] = charged.tenant or self.tenant or charged.domain
        asked["ID"] = f"{charged.session}-{id}"  # the same when it is sent again: CGRateS answers from its cache
        asked["APIOpts"] = {option: True, **self.options}
        asked["Event"] = {
            **self.fields,
            "ToR": "*voice",
            "RequestType": f"*{charged.type}",
            "OriginID": charged.session,
            "OriginHost": self.host,
            "Source": "orchestrator",
            "CallID": charged.sip_call_id,
            "Account": charged.account,
            "Destination": charged.destination,
            "SetupTime": moment(charged.setup),
            **{name: value for name, value in event.items() if value is not None},
        }
        return method, asked

    def active(self, session: str) -> dict[str, str]:
        """An entry of the answer to `GetActiveSessionIDs`."""
        return {"OriginHost": self.host, "OriginID": session}


def span(seconds: float | None) -> str | None:
    """A duration as CGRateS reads it: `20s`, `0.25s`."""
    return None if seconds is None else f"{max(0.0, seconds):.3f}".rstrip("0").rstrip(".") + "s"


def moment(wall: float | None) -> str | None:
    """A time as OpenSIPS sends it: seconds since the epoch, as text."""
    return None if wall is None else str(int(wall))


def max_usage(method: str, result: Any) -> float | None:
    """Seconds that an answer grants; None for no limit. Raises ValueError: it cannot be read."""
    value = result.get("MaxUsage") if isinstance(result, Mapping) else None
    if value is None:
        return None
    seconds = usage_of(value, in_seconds=method.endswith("WithDigest"))
    return None if seconds < 0 else seconds


def usage_of(value: Any, in_seconds: bool = False) -> float:
    """Seconds of a usage: a number or text of nanoseconds, or text with units (`1m20s`). Raises ValueError."""
    if isinstance(value, str):
        text = value.strip()
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text.lstrip("-"):
            seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
            return _bounded(-seconds if text.startswith("-") else seconds, 1)
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:80]} is no usage")
    return -1.0 if value == -1 else _bounded(value, 1 if in_seconds else NANOSECONDS)


def _bounded(value: float, unit: int) -> float:
    """Seconds. Raises ValueError: NaN, or beyond all that can be meant; an int of that size makes no float either."""
    if not -LONGEST_USAGE * unit < value < LONGEST_USAGE * unit:
        raise ValueError("a usage beyond all limits")
    return value / unit


def session_of(params: Any) -> tuple[str, Mapping[str, Any]]:
    """OriginID and event of a callback: `EventStart` below protocol 2.0, `Event` from 2.0, the event itself with a
    warning. '' when there is none."""
    first = params[0] if isinstance(params, list) and params else params
    if not isinstance(first, Mapping):
        return "", {}
    event = next((first[name] for name in ("EventStart", "Event") if isinstance(first.get(name), Mapping)), first)
    return str(event.get("OriginID") or ""), {**event, **{k: v for k, v in first.items() if k == "Reason"}}
