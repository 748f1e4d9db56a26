"""Text of an expression → tokens, with offsets.

One regular expression, tried at each offset, knows every token; what it does not know is an error with the cause a
user most likely meant (`=`, `&`, an open quote). Numbers keep their source text: `007` is compared with digits as
written.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from orchestrator.flow.expr.blanks import ORDINARY_SPACE, odd_blank
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.foreign import foreign_expression

MAX_SOURCE = 65_536
"""Characters of one expression; the same bound as for text at run time (FLOWLANG §5)."""

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_TOKEN = re.compile(
    r"""
      (?P<space> [ \t\r\n]+ )
    | (?P<number> [0-9]+ (?: \.[0-9]+ )? ) (?P<unit> [A-Za-z_][A-Za-z0-9_]* )?
    | (?P<name> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<text> ' (?: [^'\\] | \\. )* ' | " (?: [^"\\] | \\. )* " )
    | (?P<op> \?\?(?!\.) | \?\. | == | != | <= | >= | && | \|\| | [-+*/%<>!?:.,()\[\]] )
    """,
    re.VERBOSE | re.DOTALL,
)
_INTERPOLATION = re.compile(r"""(['"]?)\$\{([^}]*)(?:\}\1|\})?""")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
_MISTAKES = {
    "=": ("a single = does not compare", "write =="),
    "&": ("'&' is not an operator", "write and"),
    "|": ("'|' is not an operator", "write or"),
    "$": ("'$' belongs to no name here", "write the name alone"),
    "~": ("'~' is not an operator", "to match a pattern write x.matches('...')"),
    ";": ("';' is not an operator", "one key holds one expression"),
    "{": ("'{' begins no value here", "write the name alone, without { }"),
    "}": ("'}' is not an operator", "write the name alone, without { }"),
    "^": ("'^' is not an operator", "to match a pattern write x.matches('^...')"),
    "`": ("text stands in quotes", "write ' or \""),
    "@": ("'@' is not an operator", "text stands in quotes: 'user@host'"),
    "#": ("'#' is not an operator", "text stands in quotes"),
    "\N{NOT EQUAL TO}": ("this sign is not an operator", "write !="),
    "\N{GREATER-THAN OR EQUAL TO}": ("this sign is not an operator", "write >="),
    "\N{LESS-THAN OR EQUAL TO}": ("this sign is not an operator", "write <="),
    "\N{EN DASH}": ("this is a dash, not a minus", "write -"),
    "\N{EM DASH}": ("this is a dash, not a minus", "write -"),
    "\N{MINUS SIGN}": ("this is a typographic minus", "write -"),
    "\N{MULTIPLICATION SIGN}": ("this sign is not an operator", "write *"),
    "\N{HORIZONTAL ELLIPSIS}": ("this is one character, an ellipsis", "write the value out"),
    **dict.fromkeys(
        "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{SINGLE LOW-9 QUOTATION MARK}"
        "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}"
        "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
        "\N{SINGLE HIGH-REVERSED-9 QUOTATION MARK}\N{ACUTE ACCENT}\N{PRIME}",
        ("this is a typographic quote", "write ' or \""),
    ),
}


class Token(NamedTuple):
    """`kind` is number, duration, name, text, op or end; `text` is what stands in the source, quotes included."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def tokenize(source: str) -> list[Token]:
    """The tokens of an expression, closed by an `end` token.

    Raises:
        ExprError: E201 for what is no token, E209 for `${ }`.
    """
    if len(source) > MAX_SOURCE:
        raise ExprError("E201", f"this expression is longer than {MAX_SOURCE} characters")
    tokens: list[Token] = []
    offset = 0
    while offset < len(source):
        match = _TOKEN.match(source, offset)
        if match is None:
            raise _unknown(source, offset)
        kind = match.lastgroup or ""
        if kind == "unit":
            kind = _checked_unit(match)
        if kind != "space":
            tokens.append(Token(kind, match.group(), offset))
        offset = match.end()
    tokens.append(Token("end", "", len(source)))
    return tokens


def seconds(text: str) -> float | None:
    """Seconds of a duration literal (`500ms`, `30s`, `10m`, `2h`), or None when the text is none."""
    match = _TOKEN.fullmatch(text)
    if match is None or match["unit"] not in UNITS:
        return None
    return float(match["number"]) * UNITS[match["unit"]]


_WORDS = {
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
}
"""How people call a unit → ours."""
_LONGEST_SPOKEN = 30
_SPOKEN = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*([A-Za-z]+)")
_CLOCK = re.compile(r"(?:([0-9]{1,2}):)?([0-9]{1,2}):([0-9]{2})")
_ISO = re.compile(r"PT(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?", re.IGNORECASE)


def meant_duration(text: str) -> str:
    """The help for a duration in another notation (`5 sec`, `1h30m`, `0:05`, `PT5S`, `1d`); '' for anything else."""
    if len(text) > _LONGEST_SPOKEN:
        return ""
    parts = _SPOKEN.findall(text)
    if parts and not _SPOKEN.sub("", text).strip(" ,"):
        days = {"d": 24, "day": 24, "days": 24, "w": 168}
        if len(parts) == 1 and parts[0][1].lower() in _WORDS:
            return f"write {parts[0][0].replace(',', '.')}{_WORDS[parts[0][1].lower()]}"
        if len(parts) == 1 and parts[0][1].lower() in days and parts[0][0].isdigit():
            return f"write {int(parts[0][0]) * days[parts[0][1].lower()]}h"
        if all(unit.lower() in _WORDS for _, unit in parts):
            total = sum(float(size.replace(",", ".")) * UNITS[_WORDS[unit.lower()]] for size, unit in parts)
            return f"write {_written(total)}"
    found = _CLOCK.fullmatch(text) or (_ISO.fullmatch(text) if len(text) > 2 else None)
    if found is not None:
        hours, minutes, rest = (int(part or 0) for part in found.groups())
        return f"write {_written(hours * 3600 + minutes * 60 + rest)}"
    return ""


def _written(seconds: float) -> str:
    """A length in its largest whole unit."""
    for unit in ("h", "m", "s"):
        if seconds and seconds % UNITS[unit] == 0:
            return f"{round(seconds / UNITS[unit])}{unit}"
    return f"{round(seconds * 1000)}ms"


def unescape(quoted: str) -> str:
    r"""The value of a text literal. An unknown escape keeps its backslash, so that `'^\d+$'` is the pattern it looks
    like.
    """
    body = quoted[1:-1]
    if "\\" not in body:
        return body
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[0]), body)


def reject_interpolation(source: str) -> None:
    """Refuse `${…}` in a key that takes a bare expression, with the fixed line as help.

    Raises:
        ExprError: E209.
    """
    match = _INTERPOLATION.search(source)
    if match is None:
        return
    fixed = _INTERPOLATION.sub(lambda m: m[2].strip(), source).strip()
    whole = source.strip()
    alone = whole.startswith("${") and whole.find("}") in (-1, len(whole) - 1)
    offset = source.index(whole) if alone else match.start()
    length = len(whole) if alone else len(match.group())
    message = "this key takes an expression, so ${ } is not needed"
    raise ExprError("E209", message, f"write: {fixed}", offset, length)


def _checked_unit(match: re.Match[str]) -> str:
    if match["unit"] in UNITS:
        return "duration"
    raise ExprError(
        "E201",
        f"'{match.group()}' is neither a number nor a duration",
        meant_duration(match.group()) or "durations are written 500ms, 30s, 10m or 2h; text stands in quotes",
        match.start(),
        len(match.group()),
    )


def _unknown(source: str, offset: int) -> ExprError:
    char = source[offset]
    if char in "'\"":
        return ExprError("E201", "the text that starts here has no closing quote", f"add {char}", offset)
    if source.startswith("${", offset):
        return ExprError("E201", "${ } cannot stand inside an expression", "write the name alone", offset, 2)
    if (blank := odd_blank(char)) is not None:
        return ExprError("E201", f"there is a {blank[1]} here", ORDINARY_SPACE, offset)
    found = foreign_expression(source, offset)
    if found is not None:
        return ExprError("E201", *found, offset)
    message, help = _MISTAKES.get(char, (f"unexpected character {char!r}", ""))
    return ExprError("E201", message, help, offset)
