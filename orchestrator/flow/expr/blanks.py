"""Blanks that look like a space and are none: YAML and expressions take them for letters.

They come from web pages, word processors and keyboards (Alt+space), and cannot be seen in an editor.
"""

from __future__ import annotations

import unicodedata

ORDINARY_SPACE = "type an ordinary space"

_INVISIBLE = {
    "\u00ad": "soft hyphen",
    "\u200b": "zero-width space",
    "\u200c": "zero-width non-joiner",
    "\u200d": "zero-width joiner",
    "\u200e": "left-to-right mark",
    "\u200f": "right-to-left mark",
    "\u2060": "word joiner",
    "\u2800": "braille blank",
    "\u3164": "hangul filler",
    "\ufeff": "zero-width no-break space",
}


def odd_blank(text: str) -> tuple[int, str] | None:
    """Offset and name of the first blank in a text that is no ordinary one: `no-break space`."""
    for offset, character in enumerate(text):
        if character > "\x7f" and (character in _INVISIBLE or unicodedata.category(character) == "Zs"):
            name = _INVISIBLE.get(character) or unicodedata.name(character, "blank").lower()
            return offset, f"{name} (U+{ord(character):04X})"
    return None
