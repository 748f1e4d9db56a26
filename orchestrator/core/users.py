"""User tables of `auth:`: where the password of a user comes from (FLOWLANG §4.1 `users`).

A local table is in memory, read from its file by the application. The others are asked for each user, through a job,
and what they say is kept for a while (`core.user_cache`): a web service (`GET url?user=…&realm=…` answers
`{"password": …}` or `{"ha1": …}`, and 404 for somebody it does not know), a database, or the source of a package
(`packages.user_source`).

A hash instead of a password serves its own algorithm only, and who will answer a challenge is not known when it is
made. So everybody is offered all algorithms, and a user who answers with one that his hash does not serve is asked
again with those that it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.jobs import FindUser
from orchestrator.errors import StepError
from orchestrator.flow.run.effects import Http
from orchestrator.sip.digest import Secret, is_hash, user_hash

_DIGITS = {32: "MD5", 64: "SHA-256"}
"""Length of a hash in hexadecimal digits → its algorithm, where nothing names it."""
_NAMED = {"md5": "MD5", "sha-256": "SHA-256", "sha256": "SHA-256", "sha-512-256": "SHA-512-256"}
"""Keys of a map of hashes, in lower case."""
_TIMEOUT = 3.0
"""Seconds an HTTP table may take: the phone repeats itself for 32."""
_MOST_HASHED = 16
"""Realms and algorithms whose hashed names are kept: each is as large as the table."""


@dataclass(frozen=True, slots=True)
class LocalUsers:
    """User name → what is known of him."""

    users: Mapping[str, Secret]
    _hashed: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, users: Mapping[str, Secret]) -> LocalUsers:
        return cls(users)

    def named(self, hashed: str, realm: str, algorithm: str) -> str | None:
        """The user whose hashed name (RFC 7616 §3.4.4) this is; None for nobody."""
        names = self._hashed.get((realm, algorithm))
        if names is None:
            if len(self._hashed) >= _MOST_HASHED:
                self._hashed.clear()
            names = {user_hash(algorithm, user, realm): user for user in self.users}
            self._hashed[realm, algorithm] = names
        return names.get(hashed.lower())


@dataclass(frozen=True, slots=True)
class HttpUsers:
    url: str

    @property
    def limit(self) -> float:
        """Seconds that a look-up may take."""
        return 2 * _TIMEOUT + 1.0

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
            hashes = hashes_of(written if isinstance(written, list | dict) else [written])
            if hashes:
                return Secret(ha1=hashes)
        raise StepError("auth.down", "the user table's answer holds neither password nor ha1")


@dataclass(frozen=True, slots=True)
class AskedUsers:
    """A database, or the source of a package; `chosen` is the application's: which, with its settings."""

    name: str
    chosen: Any
    timeout: float
    """Seconds that a look-up may take."""

    @property
    def limit(self) -> float:
        """The same, with those that it may wait for others."""
        return self.timeout + 2.0

    def question(self, user: str, realm: str) -> FindUser:
        """The job for one user."""
        return FindUser(self.name, self.chosen, user, realm, self.timeout)

    def answer(self, result: Secret | None) -> Secret | None:
        """What was found."""
        return result


RemoteUsers = HttpUsers | AskedUsers
UserTable = LocalUsers | RemoteUsers


def hashes_of(written: list[Any] | Mapping[Any, Any]) -> dict[str, str] | None:
    """Hashes by algorithm: as a map says, or as their length tells; None when one of them is none."""
    pairs: list[tuple[Any, Any]]
    if isinstance(written, Mapping):
        pairs = [(_NAMED.get(str(name).lower()), text) for name, text in written.items()]
    else:
        pairs = [(_DIGITS.get(len(text)) if isinstance(text, str) else None, text) for text in written]
    found: dict[str, str] = {}
    for algorithm, text in pairs:
        if algorithm is None or not is_hash(algorithm, text):
            return None
        found[algorithm] = text.lower()
    return found
