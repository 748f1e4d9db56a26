"""The catalogue of diagnostic codes: stable names of everything the check can say (FLOWLANG §8).

E is an error, W a warning. A code is never given another meaning; docs/diagnostics.md explains each.
"""

from __future__ import annotations

CATALOGUE: dict[str, str] = {
    "E001": "not valid YAML",
    "E002": "the file does not start with flowlang: 1",
    "E003": "the file cannot be read",
    "E101": "unknown section, or unknown key of a flow or resource",
    "E102": "unknown type",
    "E103": "wrong shape: a map or a list is expected",
    "E104": "a key, id or name is defined twice",
    "E105": "wrong shape: a single value is expected",
    "E106": "bad value: duration, status code, choice, outcome or destination",
    "E108": "a step without an action",
    "E109": "unknown action",
    "E110": "a built-in event is redefined",
    "E111": "params on a flow that is started by a trigger",
    "E112": "unknown trigger or event",
    "E113": "a step with two actions",
    "E114": "unknown key of an action",
    "E115": "an action lacks a key, an attribute or a parameter",
    "E116": "the name is already taken",
    "E117": "the action has no result to keep",
    "E118": "unknown gateway, server, user table, endpoint, flow or subscription",
    "E119": "an action or key that this version cannot run",
    "E201": "expression syntax",
    "E202": "nested too deep",
    "E203": "types do not fit",
    "E204": "a value that the choice never has",
    "E205": "unknown variable or name",
    "E206": "unknown attribute",
    "E207": "unknown function, wrong arguments or bad pattern",
    "E208": "the value may be missing here",
    "E209": "${ } in a key that takes an expression",
    "E210": "${ is not closed",
    "E211": "a secret outside http",
    "E301": "the step can never run",
    "E302": "the request was already answered",
    "E303": "the action is not possible here",
    "E304": "an action on the call in on_end",
    "E305": "flows call each other in a circle",
    "W301": "the call may already be answered",
    "W302": "the REGISTER may stay unanswered",
    "W303": "the filter does not look at the event",
    "W304": "a wait without end",
    "W305": "the flow is never reached",
}
"""Code → what it means, one line."""
