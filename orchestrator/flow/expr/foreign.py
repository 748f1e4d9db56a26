"""Operators and names of other languages in an expression, and ours for them.

`=~` of OpenSIPS, Kamailio and FreeSWITCH, `LIKE` of SQL, `matches` as a word, `<>`, `===`, `$fU`: the help shows the
line to write with what stands around it.
"""

from __future__ import annotations

import re

from orchestrator.flow.expr.notation import VARIABLES

_LEFT = r"(?P<left>[A-Za-z_$][\w.$]*(?:\[[^\]]*\])?)\s*$"
_RIGHT = r"""\s*(?P<right>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|/(?:[^/\\]|\\.)+/i?|[\w.$]+)"""
_NEAR = 200
"""Characters around an operator that are looked at: patterns here meet texts of 64 K."""
_METHODS = {
    "like": "like",
    "matches": "matches",
    "match": "matches",
    "regexp": "matches",
    "rlike": "matches",
    "contains": "contains",
    "startswith": "startsWith",
    "starts_with": "startsWith",
    "endswith": "endsWith",
    "ends_with": "endsWith",
}
"""A word between two values → our function."""
_SIGNS = {"===": "==", "!==": "!=", "<>": "!=", "=>": ">=", "=<": "<="}


def foreign_expression(source: str, offset: int) -> tuple[str, str] | None:
    """Message and help for what stands at an offset that begins no token of ours, None when it is not known."""
    if source.startswith("!~", max(0, offset - 1)):
        offset -= 1
    rest = source[offset : offset + _NEAR]
    pattern = re.match(r"(=~|!~|~=|~\*?|\^=|\$=|\*=)", rest)
    if pattern is not None and not rest.startswith("~~"):
        sign = pattern[1]
        return f"{sign!r} is not an operator", _call(
            "matches" if "~" in sign else _ENDS[sign], source, offset, len(sign), sign == "!~"
        )
    if rest.startswith("$") and not rest.startswith("${"):
        return _variable(rest)
    if rest.startswith("{{"):
        inner = re.match(r"\{\{([^{}]*+)\}\}", rest)
        fixed = source[:offset] + inner[1].strip() + source[offset + inner.end() :] if inner else ""
        return "{{ }} is not needed here", f"write: {fixed.strip()}" if fixed else "write the expression alone"
    return None


_ENDS = {"^=": "startsWith", "$=": "endsWith", "*=": "contains"}


def _variable(rest: str) -> tuple[str, str] | None:
    name = re.match(r"\$\(?([A-Za-z_]\w*)", rest)
    if name is None:
        return None
    meant = VARIABLES.get(name[1])
    if meant:
        return f"${name[1]} is a variable of OpenSIPS", f"write {meant}"
    stored = re.match(r"\$(?:avp|var|xavp|shv)\(([A-Za-z_]\w*)\)", rest)
    if stored is not None:
        return f"{stored[0]} is a variable of OpenSIPS", f"declare {stored[1]} under vars: and write vars.{stored[1]}"
    header = re.match(r"\$hdr\(([^()]+)\)", rest)
    if header is not None:
        return f"{header[0]} is a variable of OpenSIPS", f"write call.headers['{header[1]}'] ?? ''"
    return None


def foreign_operator(source: str, offset: int, word: str) -> tuple[str, str] | None:
    """Message and help for a word or sign where an operator was expected."""
    if word in ("=", "==", "!=", "<", ">", ">=") or not word:
        before = source[max(0, offset - 2) : offset + 2]
        sign = next((sign for sign in _SIGNS if sign in before), None)
        if sign is not None:
            return f"{sign!r} is not an operator", f"write {_SIGNS[sign]}"
    negated = re.match(r"not\s+(\w+)", source[offset : offset + _NEAR])
    method = _METHODS.get((negated[1] if negated else word).lower())
    if method is not None:
        written = negated[0] if negated else word
        return f"{written!r} is not an operator", _call(method, source, offset, len(written), bool(negated))
    test = re.match(r"is\s+(not\s+)?(null|none|empty|defined|nil)\b", source[offset : offset + _NEAR], re.IGNORECASE)
    if test is not None:
        defined = test[2].lower() == "defined"
        value = "''" if test[2].lower() == "empty" else "null"
        sign = "!=" if bool(test[1]) != defined else "=="
        return f"'{test[0]}' is not an operator", f"write {sign} {value}"
    return None


def _call(method: str, source: str, offset: int, length: int, negated: bool) -> str:
    """`write call.from.user.matches('^a')` with what stands on both sides of an operator."""
    left, right = (
        re.search(_LEFT, source[max(0, offset - _NEAR) : offset]),
        re.match(_RIGHT, source[offset + length : offset + length + _NEAR]),
    )
    value = left["left"] if left else "x"
    value = VARIABLES.get(value[1:], value) or "x" if value.startswith("$") else value
    argument = right["right"] if right else "'...'"
    if argument.startswith("/"):
        argument = "'" + argument.rstrip("i").strip("/").replace("'", "\\'") + "'"
    return f"write {'not ' if negated else ''}{value}.{method}({argument})"
