"""User tables of `auth:`: where the password of a user comes from (FLOWLANG §4.1 `users`).

A local table is in memory, read from its file by the application. An HTTP table is asked for each user, through a job:
`GET url?user=…&realm=…` answers `{"password": …}` or `{"ha1": …}`, and 404 for somebody it does not know.

A hash instead of a password serves its own algorithm only, and who will answer a challenge is not known when it is
made. So everybody is offered all algorithms, and a user who answers with one that his hash does not serve is asked
again with those that it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import StepError
from orchestrator.flow.run.effects import Http
from orchestrator.sip.digest import Secret

_DIGITS = {32: "MD5", 64: "SHA-256"}
"""Length of a hash in hexadecimal digits → its algorithm."""
_TIMEOUT = 3.0
"""Seconds an HTTP table may take: the phone repeats itself for 32."""


@dataclass(frozen=True, slots=True)
class LocalUsers:
    """User name → what is known of him."""

    users: Mapping[str, Secret]

    @classmethod
    def of(cls, users: Mapping[str, Secret]) -> LocalUsers:
        return cls(users)


@dataclass(frozen=True, slots=True)
class HttpUsers:
    url: str

    def question(self, user: str, realm: str) -> Http:
        """The request for one user; a 404 is an answer."""
        query = {"user": user, "realm": realm}
        return Http("GET", self.url, query=query, timeout=_TIMEOUT, retries=1, expect=("404",))

    def answer(self, result: Mapping[str, Any]) -> Secret | None:
        """What a table said. Raises StepError `auth.down` when it cannot be read."""
        if result["status"] == 404:
            return None
        found = result["json"]
        if isinstance(found, Mapping):
            password, written = found.get("password"), found.get("ha1")
            if isinstance(password, str):
                return Secret(password)
            hashes = hashes_of(written if isinstance(written, list) else [written])
            if hashes:
                return Secret(ha1=hashes)
        raise StepError("auth.down", "the user table's answer holds neither password nor ha1")


UserTable = LocalUsers | HttpUsers


def hashes_of(written: list[Any]) -> dict[str, str] | None:
    """Hashes by algorithm, which their length tells; None when one of them is none."""
    found: dict[str, str] = {}
    for text in written:
        algorithm = _DIGITS.get(len(text)) if isinstance(text, str) else None
        if algorithm is None or any(digit not in "0123456789abcdefABCDEF" for digit in text):
            return None
        found[algorithm] = text.lower()
    return found
