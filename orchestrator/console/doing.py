"""What a form does is what the API does: the same endpoint, asked within the process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import falcon

from orchestrator.api.access import who_of
from orchestrator.api.endpoint import Asked, Endpoint
from orchestrator.api.problems import Problem, unknown
from orchestrator.runtime.query import checked_text

_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class _AskedHere(Asked):
    """A request whose body is what a page has made of its form."""

    said: Mapping[str, Any] = field(default_factory=dict)

    def body(self, most: int = 0) -> Mapping[str, Any]:
        return self.said

    def octets(self, most: int) -> bytes:
        return json.dumps(self.said).encode()


class Doing:
    """The endpoints of the API, for pages."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = [(endpoint, endpoint.path.split("/")) for endpoint in endpoints]

    def can(self, method: str, *path: str) -> bool:
        """Whether there is such an endpoint."""
        return self._find(method, path) is not None

    def do(
        self,
        request: falcon.Request,
        response: falcon.Response,
        method: str,
        *path: str,
        query: Mapping[str, Any] = _NOTHING,
        body: Mapping[str, Any] = _NOTHING,
    ) -> Any:
        """Ask an endpoint; `path` is given in parts, which are not escaped. Returns what it answers. Raises Problem."""
        found = self._find(method, path)
        if found is None:
            raise unknown("path", "/".join(path))
        endpoint, names = found
        _check({**names, **query})
        defaults = {
            parameter.name: "" if parameter.kind == "text" else parameter.default for parameter in endpoint.parameters
        }
        return endpoint.handle(_AskedHere(request, response, names, {**defaults, **query}, who_of(request), said=body))

    def _find(self, method: str, path: Sequence[str]) -> tuple[Endpoint, dict[str, str]] | None:
        """The endpoint, and the parts of the path by the names it has for them; literal parts go before names."""
        best: tuple[int, Endpoint, dict[str, str]] | None = None
        for endpoint, parts in self._endpoints:
            if endpoint.method != method or len(parts) != len(path):
                continue
            names, literal = {}, 0
            for part, given in zip(parts, path, strict=True):
                if part.startswith("{"):
                    names[part[1:-1].partition(":")[0]] = given
                elif part == given:
                    literal += 1
                else:
                    break
            else:
                if best is None or literal > best[0]:
                    best = literal, endpoint, names
        return None if best is None else best[1:]


def _check(values: Mapping[str, Any]) -> None:
    """Fields of a form are held to the rules of a query. Raises Problem."""
    try:
        for name, value in values.items():
            if isinstance(value, str):
                checked_text(name, value)
    except falcon.HTTPInvalidParam as error:
        raise Problem(400, "query.invalid", "invalid parameter", str(error.description)) from None
