"""Fields of forms. People write numbers as they have learned: `1.5` and `1,5`, `1,000` and `1.000` and `1 000`."""

from __future__ import annotations

import math
import re
from typing import Final

_SPACES: Final = dict.fromkeys(map(ord, "   ' ’"))
_GROUPS: Final = re.compile(r"[+-]?\d{1,3}(?:[.,]\d{3})+")


def parse_number(text: str) -> float:
    """A decimal number. The last of `.` and `,` is the decimal sign where both are there; one alone is a decimal sign,
    several of a kind part thousands.

    Raises ValueError, with a sentence for the person who wrote it.
    """
    plain = text.strip().translate(_SPACES)
    dot, comma = plain.rfind("."), plain.rfind(",")
    if dot >= 0 and comma >= 0:
        thousands = "," if dot > comma else "."
        plain = plain.replace(thousands, "").replace(",", ".")
    elif plain.count(",") == 1:
        plain = plain.replace(",", ".")
    elif _GROUPS.fullmatch(plain) and (plain.count(".") > 1 or plain.count(",") > 1):
        plain = plain.replace(".", "").replace(",", "")
    try:
        number = float(plain) if plain.isascii() and "_" not in plain else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text.strip()[:40]!r} is not a number; write 1.5 or 1,5")
    return number


def parse_whole(text: str) -> int:
    """A whole number; signs between groups of three digits part thousands, whichever they are.

    Raises ValueError, with a sentence for the person who wrote it.
    """
    plain = text.strip().translate(_SPACES)
    if _GROUPS.fullmatch(plain):
        plain = plain.replace(".", "").replace(",", "")
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", plain):
        raise ValueError(f"{text.strip()[:40]!r} is not a whole number; write 1000")
    return int(plain)
