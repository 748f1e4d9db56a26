"""Where text comes from: beside its type every value has an origin (FLOWLANG §3.1).

*Ours* is what the writer of the flow, the configuration or the engine has made. *Theirs* is what a stranger can write:
a dialled number, a header, an answer of a web service. The request's own target is theirs too, but may stand as a host:
a proxy sends a call where it is addressed. Text that a test has narrowed to some characters carries them along.
"""

from __future__ import annotations

from re import _parser, error  # type: ignore[attr-defined]
from typing import Any, NamedTuple

Path = tuple[str, ...]


class Origin(NamedTuple):
    """`outside`: a stranger may have written it. `addressed`: it is where the request is addressed to. `alphabet`: the
    only characters it is made of, None when nothing is known. `registered`: it is the URI of a contact, which leads to
    the phone that registered it, and nowhere else than as a whole."""

    outside: bool = False
    addressed: bool = False
    alphabet: frozenset[str] | None = None
    registered: bool = False


OURS = Origin()
THEIRS = Origin(outside=True)
ADDRESSED = Origin(outside=True, addressed=True)
REGISTERED = Origin(outside=True, registered=True)


def join(one: Origin, other: Origin) -> Origin:
    """The origin of what is made of two values, or may be either."""
    if one == other or not other.outside:
        return one
    if not one.outside:
        return other
    both = one.alphabet | other.alphabet if one.alphabet is not None and other.alphabet is not None else None
    return Origin(True, one.addressed and other.addressed, both, one.registered and other.registered)


def mingled(origin: Origin) -> Origin:
    """The origin of a text that holds more, or less, than what has this origin: it is no address as a whole."""
    return origin._replace(addressed=False, registered=False)


# --- narrowing --------------------------------------------------------------------------------------------------------


class Alphabet(str):
    """The last part of a path in `Facts`: the value before it is ours, or is made of these characters only.

    A NUL in front keeps it apart from the name of an attribute.
    """

    __slots__ = ()


OURS_HERE = Alphabet("\0")
"""A test has shown the value to be equal to one of ours."""


def of_characters(characters: frozenset[str]) -> Alphabet:
    return Alphabet("\0" + "".join(sorted(characters)))


def narrowed(origin: Origin, path: Path, known: frozenset[Path]) -> Origin:
    """The origin of a value at this path, by what tests have shown."""
    size = len(path)
    for fact in known:
        if len(fact) == size + 1 and isinstance(fact[-1], Alphabet) and fact[:-1] == path:
            if fact[-1] == OURS_HERE:
                return OURS
            origin = origin._replace(alphabet=frozenset(fact[-1][1:]))
    return origin


def alphabet_of(pattern: str) -> frozenset[str] | None:
    """The characters a text can have that fits an RE2 pattern as a whole; None when they are not known, or when the
    pattern is not held at both ends.

    Read with Python's parser: what the two read differently is taken as unknown.
    """
    if any(part in pattern for part in ("(?", "[:", "{,", "\\Q", "\\C", "\\p", "\\P", "\\x{")):
        return None
    try:
        items = list(_parser.parse(pattern))
    except (error, RecursionError, OverflowError):
        return None
    edges = [str(items[at][1]) if str(items[at][0]) == "AT" else "" for at in (0, -1)] if len(items) > 1 else []
    if edges not in (["AT_BEGINNING", "AT_END"], ["AT_BEGINNING_STRING", "AT_END"]):
        return None
    found: set[str] = set()
    return frozenset(found) if _collect(items[1:-1], found) else None


_DIGITS = frozenset("0123456789")
_WORD = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_CATEGORIES = {
    "CATEGORY_DIGIT": _DIGITS,
    "CATEGORY_WORD": _WORD,
    "CATEGORY_SPACE": frozenset(" \t\n\r\f\v"),
}
_LAST = 127


def _collect(items: Any, found: set[str]) -> bool:
    """Add the characters of a parsed pattern; False when they cannot be told."""
    return all(_item(str(op), value, found) for op, value in items)


def _item(op: str, value: Any, found: set[str]) -> bool:
    match op:
        case "LITERAL":
            found.add(chr(value))
            return True
        case "RANGE":
            found.update(map(chr, range(value[0], min(value[1], _LAST) + 1)))
            return bool(value[1] <= _LAST)
        case "CATEGORY":
            known = _CATEGORIES.get(str(value))
            found |= known or frozenset()
            return known is not None
        case "IN":
            return _collect(value, found)
        case "MAX_REPEAT" | "MIN_REPEAT":
            return _collect(value[2], found)
        case "SUBPATTERN":
            return _collect(value[3], found)
        case "BRANCH":
            return all(_collect(way, found) for way in value[1])
    return False
