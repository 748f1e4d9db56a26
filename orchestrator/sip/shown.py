"""Octets of a stranger for the log: nothing is lost and nothing is obeyed."""

from __future__ import annotations

import re

LONGEST = 100
"""Octets that are shown."""
_ODD = re.compile(rb"[^ -\[\]-~]")


def shown(octets: bytes) -> str:
    r"""ASCII as it is, all else (control characters, a backslash, octets over 127) as `\x00`; the first LONGEST."""
    text = _ODD.sub(lambda odd: b"\\x%02x" % odd[0][0], octets[:LONGEST]).decode("ascii")
    return text + "…" if len(octets) > LONGEST else text
