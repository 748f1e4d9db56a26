"""Who may change something through the admin interface: requests that bear the token of the configuration (RFC 6750).

Reading needs none; where no token is configured, nothing is changed. A route asks in its handler,

    def on_post(self, request, response):
        self._guard.require(request)

or takes the guard as a hook: `@falcon.before(guard)`.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Any

import falcon


class TokenGuard:
    """Compares in constant time. `token` None: every request is refused."""

    def __init__(self, token: str | None) -> None:
        self.refused = 0
        """Requests without the token, or with another one."""
        self._token = None if token is None else token.encode()

    def require(self, request: falcon.Request) -> None:
        """Raises falcon.HTTPForbidden when there is no token to bear, else falcon.HTTPUnauthorized without the right
        one."""
        if self._token is None:
            self.refused += 1
            raise falcon.HTTPForbidden(
                title="no token is configured", description="set admin: {token: {env: ADMIN_TOKEN}} to allow this"
            )
        scheme, _, token = (request.get_header("Authorization") or "").partition(" ")
        # What a client sends is latin-1 in WSGI; a token beyond ASCII is none of ours.
        if scheme.lower() != "bearer" or not compare_digest(token.strip().encode("utf-8", "replace"), self._token):
            self.refused += 1
            raise falcon.HTTPUnauthorized(
                title="token required",
                description="send the admin token: Authorization: Bearer ...",
                challenges=['Bearer realm="orchestrator"'],
            )

    def __call__(self, request: falcon.Request, response: falcon.Response, resource: Any, parameters: Any) -> None:
        """As a hook of falcon."""
        self.require(request)
