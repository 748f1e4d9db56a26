"""Types whose values are checked where they enter, and can be relied on from there: aor, uri, tel (FLOWLANG §3.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


class WrongValue(ValueError):
    """A value does not fit the type it was declared with."""


_HOST = (
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
)
_is_aor = re.compile(rf"([A-Za-z0-9\-_.!~*'()&=+$,/]+)@({_HOST})", re.ASCII).fullmatch
_USER = r"(?:[A-Za-z0-9\-_.!~*'()&=+$,/]|%[0-9A-Fa-f]{2})+"
_PARAM = r"(?:[A-Za-z0-9\-_.!~*'()\[\]/:&+$,]|%[0-9A-Fa-f]{2})+"
_is_uri = re.compile(rf"sips?:(?:{_USER}@)?{_HOST}(?::[0-9]{{1,5}})?(?:;{_PARAM}(?:={_PARAM})?)*", re.ASCII).fullmatch
_is_tel = re.compile(r"\+?[0-9*#]{1,32}", re.ASCII).fullmatch


def read_aor(text: str) -> str:
    """An address of record `user@domain`, the domain in lower case. Raises WrongValue.

    The user part holds nothing that is written otherwise in a SIP URI, so `sip:` in front of it makes one.
    """
    found = _is_aor(text)
    if found is None:
        raise WrongValue(f"{text[:80]!r} is not an address of the form user@domain")
    return f"{found[1]}@{found[2].lower()}"


def read_uri(text: str) -> str:
    """A SIP URI. Raises WrongValue."""
    if _is_uri(text) is None:
        raise WrongValue(f"{text[:80]!r} is not a SIP URI")
    return text


def read_tel(text: str) -> str:
    """A telephone number: `+` in front, digits, `*` and `#`, at most 32. Raises WrongValue."""
    if _is_tel(text) is None or len(text) > 32:
        raise WrongValue(f"{text[:80]!r} is not a telephone number")
    return text


CHECKED: Mapping[str, Callable[[str], str]] = {"aor": read_aor, "uri": read_uri, "tel": read_tel}
"""Type word → what reads a value of it."""
