"""What a plain scalar says about its own type, where no key says it: first values of `vars:`, `const:`, JSON bodies.

Only what can be nothing else is typed. A number is written without leading zeros or sign of its own; `0049301234` and
`+4930…` are numbers of telephones, `08:00` and `no` are text. Quoted values are text always.
"""

from __future__ import annotations

import re
from typing import Any

from orchestrator.flow.expr.lexer import seconds
from orchestrator.flow.expr.types import BOOL, DIGITS, DURATION, NULL, NUMBER, TEXT, Type
from orchestrator.flow.language.yaml import Scalar

INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]+")
_TELEPHONE = re.compile(r"\+?[0-9*#]+")
_WORDS: dict[str, tuple[Type, Any]] = {
    "true": (BOOL, True),
    "false": (BOOL, False),
    "null": (NULL, None),
    "~": (NULL, None),
}


def typed(scalar: Scalar, durations: bool = True) -> tuple[Type, Any]:
    """Type and value of a scalar that holds no `${…}`. `durations=False` leaves `30s` a text, as in JSON."""
    text = scalar.text
    if not scalar.plain:
        return TEXT, text
    if not text:
        return NULL, None
    if INTEGER.fullmatch(text):
        return NUMBER, int(text)
    if _FRACTION.fullmatch(text):
        return NUMBER, float(text)
    if _TELEPHONE.fullmatch(text):
        return DIGITS, text
    length = seconds(text) if durations else None
    if length is not None:
        return DURATION, length
    return _WORDS.get(text, (TEXT, text))


def number(text: str) -> int | None:
    """A whole number as the language writes it, or None."""
    return int(text) if INTEGER.fullmatch(text) else None
