"""Random words of our own: branch parameters and tags.

A branch parameter must not be guessable, or anybody can forge a response to a call (RFC 3261 §8.1.1.7 asks for
uniqueness, forged responses for the rest). 72 random bits make 18 hexadecimal digits. Entropy is drawn in
blocks because one system call per message would cost more than the rest of the line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_BLOCK: Final = 4096
_TOKEN: Final = 18
"""Hexadecimal digits."""


class Tokens:
    """A source of tokens over `entropy(n) -> n random octets` (os.urandom; a seeded generator in tests)."""

    __slots__ = ("_entropy", "_block", "_at")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._block = b""
        self._at = 0

    def token(self) -> bytes:
        """18 hexadecimal digits."""
        at, block = self._at, self._block
        if at + _TOKEN > len(block):
            block = self._block = self._entropy(_BLOCK).hex().encode()
            at = 0
        self._at = end = at + _TOKEN
        return block[at:end]

    def branch(self) -> bytes:
        """A Via branch with the magic cookie of RFC 3261 §8.1.1.7."""
        return b"z9hG4bK" + self.token()
