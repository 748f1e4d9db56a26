"""What a refused request is told: problem details (RFC 9457) with a stable `code` and the `cure`.

{"title": "unknown call", "status": 404, "code": "call.unknown", "detail": "…", "cure": "…"}
"""

from __future__ import annotations

import json
from http.client import responses
from typing import Any, Final

import falcon

MEDIA_TYPE: Final = "application/problem+json"


class Problem(falcon.HTTPError):
    """A request is refused. `code` is for programs and never changes, `detail` says what is wrong with this one, `cure`
    how to mend it; further members with `more`."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        cure: str = "",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(status, title=title, description=detail or None, headers=headers)
        self.problem = code
        self.cure = cure
        self.more = more

    def to_dict(self, obj_type: type[Any] = dict) -> Any:
        """The members."""
        told = obj_type(title=self.title, status=self.status_code, code=self.problem)
        if self.description:
            told["detail"] = self.description
        if self.cure:
            told["cure"] = self.cure
        told.update(self.more)
        return told


_CODES: Final = {
    400: "request.invalid",
    401: "token.required",
    403: "forbidden",
    404: "path.unknown",
    405: "method.unknown",
    413: "body.too_large",
    415: "body.type",
    421: "host.unknown",
    429: "rate.limited",
    503: "busy",
}
"""Of what the framework, or a route that knows no codes, refuses."""


def problem_of(error: falcon.HTTPError) -> dict[str, Any]:
    """The members of any refusal."""
    if isinstance(error, Problem):
        return dict(error.to_dict())
    status = error.status_code
    is_query = isinstance(error, falcon.HTTPInvalidParam | falcon.HTTPMissingParam)
    told = {
        "title": error.title or responses.get(status, str(status)),
        "status": status,
        "code": "query.invalid" if is_query else _CODES.get(status, f"http.{status}"),
    }
    if error.description:
        told["detail"] = error.description
    return told


def write_problem(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
    """As the error serializer of a falcon app: all refusals have one form."""
    response.content_type = MEDIA_TYPE
    response.data = json.dumps(problem_of(error)).encode()


def unknown(kind: str, name: str, cure: str = "") -> Problem:
    """404 for a call, a gateway, …"""
    return Problem(404, f"{kind}.unknown", f"unknown {kind}", f"there is no {kind} {name[:200]!r}", cure)
