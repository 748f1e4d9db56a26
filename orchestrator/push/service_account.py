"""Service accounts of Google: the file that a project hands out, and the tokens it is good for.

A token is asked for at the account's `token_uri` with a JWT signed by the account's key (RFC 7523 §2.1), is good for an
hour, and is renewed while the old one still is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from gevent.lock import BoundedSemaphore
from pydantic import SecretStr

from orchestrator.packages.push_service import PushDown
from orchestrator.push.exchanges import Server, json_of, retry_after, told

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_LIFE = 3600
"""Seconds that an assertion is good for: the most that Google takes."""
LONGEST_LIFE = 86_400
"""Seconds that a token is used for at most."""
EARLY = 300.0
"""Seconds before its end that a token is renewed."""
REST = 5.0
"""Seconds after a refusal in which the token endpoint is not asked again."""


class UnusableAccount(Exception):
    """The account cannot be used; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What the file says."""

    project: str
    email: str
    key_id: str
    key: RSAPrivateKey
    token_uri: str


def read_account(source: Path | SecretStr) -> ServiceAccount:
    """The account in a file, or in the JSON itself. Raises UnusableAccount."""
    name = str(source) if isinstance(source, Path) else "the service account"
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source.get_secret_value()
        said = json.loads(text)
    except OSError as error:
        raise UnusableAccount(f"cannot read {name}: {error.strerror or error}") from None
    except ValueError:
        raise UnusableAccount(
            f"{name} is not JSON: download it from the project's settings, Service accounts"
        ) from None
    if not isinstance(said, dict) or said.get("type") != "service_account":
        hint = ": it is the app's own file" if isinstance(said, dict) and "project_info" in said else ""
        raise UnusableAccount(f"{name} is not the file of a service account{hint}")
    project, email, pem, key_id = (
        _text_of(said, key, name) for key in ("project_id", "client_email", "private_key", "private_key_id")
    )
    token_uri = said.get("token_uri", "https://oauth2.googleapis.com/token")
    if not isinstance(token_uri, str) or not token_uri.startswith(("https://", "http://")):
        raise UnusableAccount(f"token_uri in {name} is not an https: URL")
    return ServiceAccount(project, email, key_id, _key(pem, name), token_uri)


def _text_of(said: Mapping[str, Any], key: str, name: str) -> str:
    value = said.get(key)
    if not isinstance(value, str) or not value:
        raise UnusableAccount(f"{name} has no {key}")
    return value


def _key(pem: str, name: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableAccount(f"private_key in {name} is not a private key in PEM") from None
    if not isinstance(key, RSAPrivateKey):
        raise UnusableAccount(f"private_key in {name} is not an RSA key")
    return key


class AccessTokens:
    """The tokens of one account for one scope; asked for when they are needed, by one greenlet at a time."""

    def __init__(
        self,
        account: ServiceAccount,
        scope: str,
        *,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        self._account = account
        self._scope = scope
        self._clock = clock
        self._wall = wall
        self._server = Server(account.token_uri)
        self._asking = BoundedSemaphore()
        self._token = ""
        self._renew = self._end = 0.0
        self._rest = 0.0
        self._trouble: PushDown | None = None
        self.asked = 0

    def token(self) -> str:
        """One that is good; while it is being renewed, or cannot be, the one before. Raises PushDown."""
        now = self._clock()
        if self._token and (now < self._renew or (now < self._end and (self._asking.locked() or now < self._rest))):
            return self._token
        with self._asking:
            now = self._clock()
            if self._token and now < self._renew:
                return self._token
            if now >= self._rest:
                self._renewed()
            if self._token and self._clock() < self._end:
                return self._token
            trouble = self._trouble or PushDown("token: none")
            raise PushDown(trouble.reason, trouble.retry_after, final=trouble.final)

    def drop(self, token: str) -> None:
        """This one has been refused: the next push gets another one."""
        if token == self._token:
            self._token = ""

    def close(self) -> None:
        self._server.close()

    def _renewed(self) -> None:
        """Ask for one; `_trouble` says why there is none."""
        self.asked += 1
        try:
            found = self._ask()
        except PushDown as trouble:
            self._trouble = trouble
            self._rest = self._clock() + (REST if trouble.retry_after is None else trouble.retry_after)
            return
        except BaseException:  # the push that asked has no more time: the next one takes the token that is left
            if self._token and self._clock() < self._end:
                self._rest = self._clock() + REST
            raise
        self._token, life = found
        self._end = self._clock() + life
        self._renew = self._end - min(EARLY, life / 2)
        self._trouble = None

    def _ask(self) -> tuple[str, float]:
        body = urlencode({"grant_type": GRANT, "assertion": self._assertion()}).encode()
        answer = self._server.post("", {"content-type": "application/x-www-form-urlencoded"}, body)
        said = json_of(answer.body)
        if answer.status == 200:
            token, life = said.get("access_token"), said.get("expires_in", ASSERTION_LIFE)
            if not isinstance(token, str) or not token.isascii() or not token.isprintable():
                raise PushDown("token: the answer has none", final=True)
            return token, float(min(life, LONGEST_LIFE)) if isinstance(
                life, int | float
            ) and life > 0 else ASSERTION_LIFE
        words = " ".join(told(said.get(key)) for key in ("error", "error_description")).strip()
        final = 400 <= answer.status < 500 and answer.status != 429
        raise PushDown(
            f"token: {answer.status} {words}".rstrip(), retry_after(answer.headers, self._wall()), final=final
        )

    def _assertion(self) -> str:
        account, now = self._account, int(self._wall())
        claims: dict[str, Any] = {
            "iss": account.email,
            "scope": self._scope,
            "aud": account.token_uri,
            "iat": now,
            "exp": now + ASSERTION_LIFE,
        }
        return jwt.encode(claims, account.key, algorithm="RS256", headers={"kid": account.key_id})
