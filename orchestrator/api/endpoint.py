"""One route of the API as data: its method, path, parameters, body and answer, and what does the work.

Reading the query and the body, paging, the name of the node and the form of errors are the same for all and stand
here; the description of the API (`api.openapi`) is made of the same table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Literal

import falcon
import gevent

from orchestrator.api.access import Who, who_of
from orchestrator.api.bodies import kind_of, octets_of
from orchestrator.api.problems import Problem
from orchestrator.runtime.query import Query
from orchestrator.views.listing import Listing, Page

Kind = Literal["text", "flag", "whole", "seconds"]
Schema = dict[str, Any]

LIMIT: Final = 100
MOST: Final = 1000
"""Entries of a page unless asked otherwise, and at most."""
MOST_BODY: Final = 65_536
"""Octets of a body, where an endpoint says nothing else."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of the query. `required`: it has to be there, and not empty."""

    name: str
    doc: str
    kind: Kind = "text"
    required: bool = False
    choices: tuple[str, ...] = ()
    default: float = 0
    most: float = 0


PAGING: Final = (
    Parameter("limit", "How many at most.", "whole", default=LIMIT, most=MOST),
    Parameter("cursor", "Where to go on: `next` of the page before."),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as its endpoint sees it."""

    request: falcon.Request
    response: falcon.Response
    path: Mapping[str, str]
    values: Mapping[str, Any]
    """Parameters of the query, each with its default."""
    who: Who

    def text(self, name: str) -> str:
        """A parameter that is a text; '' where it is not given."""
        return str(self.values[name])

    def body(self, most: int = MOST_BODY) -> Mapping[str, Any]:
        """The JSON object of the body. Raises Problem."""
        octets = self.octets(most)
        try:
            found = json.loads(octets)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Problem(400, "body.invalid", "no JSON object", "the body has to be a JSON object in UTF-8")
        return found

    def octets(self, most: int) -> bytes:
        """The body as it came, which says that it is JSON: no form of a page of somebody else does. Raises Problem."""
        if kind_of(self.request) not in ("application/json", "application/cloudevents+json"):
            raise Problem(415, "body.type", "JSON is expected", cure="send Content-Type: application/json")
        return octets_of(self.request, most)

    def page(self, listing: Listing[Any]) -> Page:
        """The page that is asked for. Raises Problem."""
        try:
            return listing.page(self.values["limit"], self.text("cursor"), breathe)
        except ValueError as error:
            raise Problem(
                400, "query.invalid", "invalid parameter", f"cursor: {error}", "begin anew without it"
            ) from None


def breathe() -> None:
    """Between two stretches of a long list: calls go on meanwhile."""
    gevent.sleep(0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one method does at one path. `handle` returns a dict (the answer is that and the `node`), a Page, None for
    204, or a text where `media` is no JSON; what sets `response.stream` returns None, too."""

    method: str
    path: str
    """With `{names}`; one in `{name:path}` may hold slashes."""
    summary: str
    handle: Callable[[Asked], dict[str, Any] | Page | str | None]
    parameters: tuple[Parameter, ...] = ()
    answer: Schema = field(default_factory=dict)
    """JSON schema of the answer without `node`; of one item where it is a list."""
    body: Schema | None = None
    """JSON schema of the body."""
    status: int = 200
    media: str = "application/json"
    lists: bool = False
    """It answers pages."""
    refusals: tuple[tuple[int, str], ...] = ()
    """Status and what it means, of refusals that only this one has."""

    def read_query(self, request: falcon.Request) -> dict[str, Any]:
        """Raises Problem."""
        known = (*self.parameters, *PAGING) if self.lists else self.parameters
        try:
            query = Query(request, *(parameter.name for parameter in known))
            return {parameter.name: _value(query, parameter) for parameter in known}
        except (falcon.HTTPInvalidParam, falcon.HTTPMissingParam) as error:
            raise Problem(400, "query.invalid", "invalid parameter", str(error.description)) from None


def _value(query: Query, parameter: Parameter) -> Any:
    name = parameter.name
    if parameter.kind == "flag":
        return query.flag(name)
    if parameter.kind == "whole":
        return query.whole(name, int(parameter.default), int(parameter.most))
    if parameter.kind == "seconds":
        return query.seconds(name, parameter.default, parameter.most)
    text = query.text(name, None if parameter.required else "")
    if text and parameter.choices and text not in parameter.choices:
        raise falcon.HTTPInvalidParam(f"The value is one of {', '.join(parameter.choices)}.", name)
    return text


class Resource:
    """The endpoints of one path, as falcon calls them."""

    def __init__(self, node: str, endpoints: Sequence[Endpoint]) -> None:
        self._node = node
        self._by_method = {endpoint.method: endpoint for endpoint in endpoints}
        for endpoint in endpoints:
            setattr(self, f"on_{endpoint.method.lower()}", self._responder(endpoint))

    def _responder(self, endpoint: Endpoint) -> Callable[..., None]:
        def respond(request: falcon.Request, response: falcon.Response, **path: str) -> None:
            values = endpoint.read_query(request)
            told = endpoint.handle(Asked(request, response, path, values, who_of(request)))
            self._answer(endpoint, response, told)

        return respond

    def _answer(self, endpoint: Endpoint, response: falcon.Response, told: dict[str, Any] | Page | str | None) -> None:
        if response.stream is not None:
            return
        if told is None:
            response.status = 204
            return
        response.status = endpoint.status
        response.cache_control = ("no-store",)
        if isinstance(told, str):
            response.content_type = endpoint.media
            response.text = told
        elif isinstance(told, Page):
            response.media = {"node": self._node, "items": told.items, "total": told.total, "next": told.next}
        else:
            response.media = {"node": self._node, **told}


def by_path(endpoints: Sequence[Endpoint]) -> Iterator[tuple[str, list[Endpoint]]]:
    """Path → its endpoints, in the order of the table."""
    found: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        found.setdefault(endpoint.path, []).append(endpoint)
    yield from found.items()


Clock = Callable[[], float]
"""The monotonic clock, in seconds."""

clock: Final[Clock] = monotonic
