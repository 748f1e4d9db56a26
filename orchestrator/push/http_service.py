"""Push services of any kind that are told over HTTP: a request made of a template, as an `http:` step makes it.

The template is that of the configuration (`settings.push_template`): text of the phone and of its caller is encoded by
the place it is put into, and can be no part of the server's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from time import time
from typing import Any

from orchestrator.errors import StepError
from orchestrator.flow.language.program import Evaluable
from orchestrator.flow.run.effects import Http
from orchestrator.packages.push_service import PushDown
from orchestrator.push.exchanges import LONGEST, retry_after
from orchestrator.runtime.http import HttpClient
from orchestrator.sip.push import Push, Pushed

ANY_STATUS = ("1xx", "2xx", "3xx", "4xx", "5xx")


@dataclass(frozen=True, slots=True)
class HttpTemplate:
    """The request for a push, and how its answer is read. What is compiled answers `evaluate({"push": …})`; whether two
    are the same, the text that they are made of says."""

    url: Evaluable = field(compare=False)
    method: str = ""
    """'': POST with a body, else GET."""
    headers: Mapping[str, Evaluable] = field(default_factory=dict, compare=False)
    query: Mapping[str, Evaluable] = field(default_factory=dict, compare=False)
    json: Evaluable | None = field(default=None, compare=False)
    form: Mapping[str, Evaluable] | None = field(default=None, compare=False)
    body: Evaluable | None = field(default=None, compare=False)
    auth: tuple[str, str] | None = None
    expect: tuple[str, ...] = ()
    """Statuses besides 2xx of a push that was taken: `409`, `3xx`."""
    dead: tuple[str, ...] = ("410",)
    """Statuses that say that this phone will never be reached under this address again."""


class HttpPush:
    """A service that is told by a template."""

    def __init__(self, template: HttpTemplate, client: HttpClient | None = None) -> None:
        self._template = template
        self._client = client or HttpClient()

    def check(self) -> list[str]:
        return []

    def start(self) -> None:
        pass

    def server_of(self, push: Push) -> str:
        return ""

    def send(self, push: Push) -> Pushed:
        try:
            result = self._client.perform(self._request(push))
        except StepError as error:
            if error.type in ("http.connect", "http.timeout"):
                raise PushDown(error.message) from None
            return Pushed("failed", error.message)
        status = result["status"]
        if _among(status, self._template.dead):
            return Pushed("dead", str(status))
        if 200 <= status < 300 or _among(status, self._template.expect):
            return Pushed("sent")
        if status == 429 or status >= 500:
            raise PushDown(str(status), retry_after(result["headers"], time()))
        return Pushed("failed", str(status))

    def stop(self) -> None:
        self._client.close()

    def _request(self, push: Push) -> Http:
        """Raises StepError: what the phone says cannot be written into its place."""
        template, env = self._template, {"push": view(push)}

        def one(value: Evaluable | None) -> Any:
            return None if value is None else value.evaluate(env)

        def all_of(values: Mapping[str, Evaluable]) -> dict[str, str]:
            return {name: _as_text(value.evaluate(env)) for name, value in values.items()}

        return Http(
            method=template.method,
            url=one(template.url),
            headers=all_of(template.headers),
            query=all_of(template.query),
            json=one(template.json),
            form=None if template.form is None else all_of(template.form),
            body=one(template.body),
            auth=template.auth,
            timeout=LONGEST,
            expect=ANY_STATUS,
        )


def view(push: Push) -> dict[str, Any]:
    """What `push` is in a template; `settings.push_template.PUSH` has the types."""
    address = push.address
    return {
        "service": push.service,
        "provider": address.service,
        "token": address.token,
        "tokens": address.tokens,
        "param": address.param,
        "prid": address.prid,
        "app": address.app,
        "team": address.team,
        "sandbox": address.sandbox,
        "kind": push.kind,
        "ttl": max(ceil(push.ttl), 0),
        "aor": push.aor,
        "call": push.call,
        "collapse": push.collapse,
        "data": push.data,
        "options": push.options,
    }


def _among(status: int, written: tuple[str, ...]) -> bool:
    return str(status) in written or f"{status // 100}xx" in written


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
