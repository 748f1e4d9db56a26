"""The API put together: its endpoints at their paths, who may ask for them, and the form of what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import falcon

from orchestrator.api.access import Access
from orchestrator.api.actions import Actions
from orchestrator.api.endpoint import Endpoint, Resource, by_path
from orchestrator.api.histories import history_endpoints
from orchestrator.api.openapi import openapi
from orchestrator.api.problems import write_problem
from orchestrator.api.reads import Shown, read_endpoints
from orchestrator.api.writes import write_endpoints
from orchestrator.runtime.query import Query

PREFIX: Final = "/api/v1/"
ALIASES: Final = {"/events": "events", "/push": "push"}
"""Paths from before there was an API, of which programs of others know: POST to them does the same."""


class _Description:
    """The description of the API itself."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        Query(request)
        response.media = self._told


def add_api(app: falcon.App[Any, Any], access: Access, shown: Shown, actions: Actions) -> Sequence[Endpoint]:
    """Serve the API, and let nobody pass who has no token. Returns its endpoints."""
    endpoints = (
        *read_endpoints(shown),
        *history_endpoints(shown.engine, shown.history, shown.ended, access),
        *write_endpoints(actions),
    )
    app.add_middleware(access)
    app.set_error_serializer(write_problem)
    node = shown.identity.node
    described = openapi(endpoints, PREFIX)
    app.add_route(PREFIX + "openapi.json", _Description(described))
    for path, group in by_path(endpoints):
        app.add_route(PREFIX + path, Resource(node, group))
    for alias, path in ALIASES.items():
        app.add_route(
            alias, Resource(node, [found for found in endpoints if (found.method, found.path) == ("POST", path)])
        )
    return endpoints
