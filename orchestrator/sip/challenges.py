"""Which header carries a challenge, and which its answer (RFC 3261 §22)."""

from __future__ import annotations

from typing import Final

CHALLENGES: Final = {
    401: (b"www-authenticate", b"Authorization: "),
    407: (b"proxy-authenticate", b"Proxy-Authorization: "),
}
"""Status → header of the challenge, header of the answer."""
