"""The console put together: its pages at their paths, and what every answer says to the browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import falcon

from orchestrator.api.problems import problem_of, write_problem
from orchestrator.console.assets import assets
from orchestrator.console.call_list_pages import EndedCalls, LiveCalls
from orchestrator.console.call_pages import OneCall
from orchestrator.console.console_page import Desk, page_text
from orchestrator.console.event_pages import Catalogue
from orchestrator.console.flow_pages import Flows, OneFlow, Run
from orchestrator.console.gateway_pages import Gateways
from orchestrator.console.operation_pages import Operations
from orchestrator.console.overview_page import Overview
from orchestrator.console.registration_pages import Registration, Registrations
from orchestrator.console.rendering import environment
from orchestrator.console.sign_in_pages import PATH, SignIn, SignOut

POLICY: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
)
"""No script or style that is not a file of ours, nothing from elsewhere, and nobody may frame us."""
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none at all, browsers say no Origin when they send a form
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOREVER: Final = ("public", "max-age=31536000", "immutable")


class Headers:
    """A middleware of falcon: what every answer says to a browser."""

    def process_response(self, request: falcon.Request, response: falcon.Response, *_: object) -> None:
        for name, value in HEADERS.items():
            response.set_header(name, value)


class _Static:
    """`/static/{name}`"""

    def on_get(self, request: falcon.Request, response: falcon.Response, name: str) -> None:
        asset = assets().get(name)
        if asset is None:
            raise falcon.HTTPNotFound(title="unknown file")
        response.etag = asset.mark
        response.cache_control = FOREVER if request.query_string == asset.mark else ("no-cache",)
        if request.if_none_match and any(tag == asset.mark for tag in request.if_none_match):
            response.status = falcon.HTTP_304
            return
        response.content_type = asset.content_type
        response.data = asset.data


def add_console(app: falcon.App[Any, Any], desk: Desk) -> None:
    """Serve the console beside the API."""
    environment()
    desk.access.sign_in_page = PATH
    desk.access.open_paths = (*desk.access.open_paths, PATH, "/static/")
    app.add_middleware(Headers())
    app.set_error_serializer(_Errors(desk).write)
    overview, one_call, one_flow, run = Overview(desk), OneCall(desk), OneFlow(desk), Run(desk)
    calls, ended, gateways, registration, catalogue = (
        LiveCalls(desk),
        EndedCalls(desk),
        Gateways(desk),
        Registration(desk),
        Catalogue(desk),
    )
    operations = Operations(desk)
    for path, resource, suffix in (
        ("/static/{name:path}", _Static(), ""),
        (PATH, SignIn(desk), ""),
        ("/sign-out", SignOut(desk), ""),
        ("/", overview, ""),
        ("/overview/live", overview, "live"),
        ("/overview/samples", overview, "samples"),
        ("/calls", calls, ""),
        ("/calls/live", calls, "live"),
        ("/calls/{id}", one_call, ""),
        ("/calls/{id}/live", one_call, "live"),
        ("/calls/{id}/messages/{message}", one_call, "message"),
        ("/calls/{id}/hang-up", one_call, "hang_up"),
        ("/archive", ended, ""),
        ("/registrations", Registrations(desk), ""),
        ("/registrations/{aor}", registration, ""),
        ("/registrations/{aor}/remove", registration, "remove"),
        ("/registrations/{aor}/push", registration, "push"),
        ("/gateways", gateways, ""),
        ("/gateways/live", gateways, "live"),
        ("/gateways/{name}/{verb}", gateways, "act"),
        ("/flows", Flows(desk), ""),
        ("/flows/{name}", one_flow, ""),
        ("/flows/{name}/live", one_flow, "live"),
        ("/flows/{name}/graph.svg", one_flow, "graph"),
        ("/runs/{run}", run, ""),
        ("/runs/{run}/test", run, "test"),
        ("/runs/{run}/test.yaml", run, "download"),
        ("/catalogue", catalogue, ""),
        ("/catalogue/live", catalogue, "live"),
        ("/catalogue/raise", catalogue, "raise"),
        ("/operations", operations, ""),
        ("/operations/reload", operations, "reload"),
        ("/operations/drain", operations, "drain"),
        ("/operations/undrain", operations, "undrain"),
        ("/operations/log-level", operations, "log_level"),
        ("/operations/lift-ban", operations, "lift_ban"),
    ):
        app.add_route(path, resource, **({"suffix": suffix} if suffix else {}))


class _Errors:
    """How a refusal is shown: as a page to a person, as problem details to a program."""

    def __init__(self, desk: Desk) -> None:
        self._node = desk.shown.identity.node

    def write(self, request: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
        if request.path.startswith("/api/") or not request.client_accepts("text/html") or _is_program(request):
            write_problem(request, response, error)
            return
        told = {"detail": "", "cure": "", **problem_of(error)}
        response.content_type = falcon.MEDIA_HTML
        response.cache_control = ("no-store",)
        response.text = page_text(request, self._node, "problem.html", **told, back=_back(request))


def _is_program(request: falcon.Request) -> bool:
    """curl and its like take anything: they say so with `*/*` alone."""
    return "html" not in request.accept


def _back(request: falcon.Request) -> str:
    """The page before, as far as it is ours."""
    path = request.path.rpartition("/")[0]
    return path or "/"
