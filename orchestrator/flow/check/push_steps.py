"""Steps that wake phones: `push`, and `relay` with `wake:` (FLOWLANG §4.3).

Which push services there are stands in the configuration. A flow file that is checked without one may name any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.flow.check.paths import Path
from orchestrator.flow.check.shapes import Shape
from orchestrator.flow.check.steps import Around, Compiled, StepChecker
from orchestrator.flow.expr import closest
from orchestrator.flow.language.context import RESULTS
from orchestrator.flow.language.evaluables import constant_of
from orchestrator.flow.language.program import REQUESTS
from orchestrator.flow.language.yaml import Entries

LONGEST_WAKE = 300.0
"""Seconds that a caller may be kept waiting for phones."""
REQUEST_WAKE = 28.0
"""Seconds that a request other than INVITE waits for phones at most: it lives for 32 (RFC 3261 §17.1.2.2)."""
LONGEST_TTL = 28 * 86400.0
"""Seconds that push services keep a push (FCM; Apple: 30 days)."""


def check_wake(checker: StepChecker, shape: Shape, args: Mapping[str, Any]) -> None:
    """`wake:` of a relay: whom it can be for, and how long."""
    given = shape.fields.get("wake")
    if given is None:
        return
    to = constant_of(args.get("to"))
    if "gateways" in shape.fields or (to is not None and to != "registered"):
        help = "write  to: registered, or remove wake:"
        checker.report.error("E115", "wake: needs phones that are registered with us", given.key, help)
        return
    wake = constant_of(args.get("wake"))
    if wake is not None and wake > LONGEST_WAKE:
        checker.report.warning("W310", "nobody waits that long for a phone to wake up", given.value, "write  20s")
    elif wake is not None and wake > REQUEST_WAKE and checker.head.kind in REQUESTS:
        message = f"a {checker.head.kind.upper()} waits for {REQUEST_WAKE:g}s at most"
        checker.report.warning("W310", message, given.value, f"write {REQUEST_WAKE:g}s")
    elif wake is not None:
        _leaves_time(checker, shape, args, wake)
    _need_service(checker, shape)


def _leaves_time(checker: StepChecker, shape: Shape, args: Mapping[str, Any], wake: float) -> None:
    """`ring:` is for all of the relay, the wait included."""
    ring = constant_of(args["ring"]) if "ring" in args else checker.names.defaults.get("ring")
    if ring is not None and ring <= wake:
        message = f"the relay ends after {ring:g}s (ring:), so no phone has {wake:g}s to wake up and ring"
        checker.report.warning("W310", message, shape.fields["wake"].value, f"write  ring: {wake + 20:g}s")


def push(checker: StepChecker, shape: Shape, path: Path, around: Around) -> Compiled:
    args = checker.plain(shape, path)
    for name in ("for", "ttl"):
        length = constant_of(args.get(name))
        if length is not None and length > LONGEST_TTL:
            help = "write for example 20s; 672h at most"
            checker.report.error("E106", "no push service keeps a push for so long", shape.fields[name].value, help)
    known = checker.names.known.push_services
    services = shape.fields["services"].value if "services" in shape.fields else None
    for key, options in services if isinstance(services, Entries) else ():
        if known and key.text not in known:
            best = closest(key.text, known)
            help = f"did you mean {best!r}?" if best else f"known: {', '.join(known)}"
            checker.report.error("E118", f"unknown push service {key.text!r}", key, help)
        elif known and not isinstance(options, Entries):
            help = "write  {apns: {…}}: what this kind of push service understands"
            checker.report.error("E103", f"{key.text}: takes a map here", options, help)
    _need_service(checker, shape)
    assert shape.action is not None
    return args, RESULTS[shape.action.result] if shape.action.result else None


def _need_service(checker: StepChecker, shape: Shape) -> None:
    """Said once in a file: it is one mistake of the configuration."""
    message = "no phone is woken: no push service is configured"
    if checker.names.known.push_services == () and all(d.message != message for d in checker.report.diagnostics):
        help = "name one under  push: services:  of the configuration (docs/push.md)"
        key = shape.fields["wake"].key if "wake" in shape.fields else shape.key
        checker.report.warning("W310", message, key, help)
