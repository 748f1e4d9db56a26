"""Notation of other systems in texts: `{{ … }}` of Jinja and Home Assistant, `$fU` and `$avp(…)` of OpenSIPS.

None of it is filled in here, so a text that holds it reaches a log, a header or a web service as it stands. It may be
meant, so it is a warning (W306).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

VARIABLES = {
    "fU": "call.from.user",
    "fu": "call.from.uri",
    "fd": "call.from.host",
    "fn": "call.from.display",
    "tU": "call.to.user",
    "tu": "call.to.uri",
    "td": "call.to.host",
    "tn": "call.to.display",
    "rU": "call.target.user",
    "ru": "call.target.uri",
    "rd": "call.target.host",
    "oU": "call.target.user",
    "ou": "call.target.uri",
    "od": "call.target.host",
    "ci": "call.sip_call_id",
    "si": "call.source_ip",
    "sp": "call.source_port",
    "ua": "call.user_agent",
    "au": "call.user",
    "proto": "call.transport",
    "rm": "",
    "rs": "relay.code",
    "rr": "relay.reason",
    "ct": "",
    "cs": "",
    "ft": "",
    "tt": "",
    "du": "",
    "ds": "",
    "dd": "",
    "br": "",
    "Ri": "",
    "Rp": "",
    "Ts": "now",
    "TS": "now",
    "Tf": "now",
}
"""Pseudo-variables of OpenSIPS and Kamailio without their dollar → our name, '' where there is none."""

_ROOTS = "call|event|vars|params|request|refer|relay|const|error"
_CALLS = "avp|var|hdr|json|dlg_val|xavp|xavu|shv|sht|script|param|acc_extra|T_branch_idx|rb|tlsv?|ct|sel|env|def"
_FOREIGN = re.compile(
    r"(?<!\$)\{\{(?P<jinja>[^{}]*+)\}\}"
    r"|\{%(?P<block>[^{}%]*+)%\}"
    rf"|(?<!\$)\$(?P<variable>{'|'.join(VARIABLES)})(?![A-Za-z0-9_(\[])"
    rf"|(?<!\$)\$(?P<call>{_CALLS})\([^()]*\)"
    r"|(?<!\$)\$\((?P<parens>[A-Za-z_][^()]*(?:\([^()]*\)[^()]*)?)\)"
    rf"|(?<!\$)\$(?P<dollar>(?:{_ROOTS})(?:\.[A-Za-z_]+)+)"
    rf"|(?<![$\w{{])\{{(?P<braces>(?:{_ROOTS})(?:\.[A-Za-z_]+)+)\}}(?!\}})"
    r"|[#%]\{(?P<sign>[A-Za-z_][\w.]*)\}"
)


class Foreign(NamedTuple):
    """One piece: where it stands in the text, and what to write instead."""

    text: str
    start: int
    help: str


def foreign_notation(text: str) -> Iterator[Foreign]:
    """Every piece of another system's notation in a text."""
    if "$" not in text and "{" not in text:
        return
    for found in _FOREIGN.finditer(text):
        yield Foreign(found[0], found.start(), _help(found))


def _help(found: re.Match[str]) -> str:
    meant = (found["jinja"] or "").strip() or found["dollar"] or found["braces"] or found["sign"] or ""
    variable = found["variable"] or (found["parens"] or "")[:2]
    if variable in VARIABLES:
        meant = VARIABLES[variable]
        return (
            f"write ${{{meant}}}" if meant else "a flow has no such value; known: call.from.user, call.target.user, ..."
        )
    header = re.fullmatch(r"\$hdr\(([^()]+)\)", found[0])
    if header is not None:
        return f"write ${{call.headers['{header[1]}'] ?? ''}}"
    named = re.fullmatch(r"\$(?:avp|var|shv|xavp)\(([A-Za-z_]\w*)\)", found[0])
    if named is not None:
        return f"declare {named[1]} under vars: and write ${{vars.{named[1]}}}"
    if found["block"] is not None:
        return "a choice is written with if: beside the step, or ${a ? b : c}"
    return f"write ${{{meant}}}" if meant else "values are filled in with ${...}"


def foreign_name(name: str) -> str:
    """The help for a name that is another system's: `fU` in `${fU}`; '' for any other."""
    meant = VARIABLES.get(name)
    return f"write {meant}" if meant else ""
