"""What all pages have in common: the frame around them, their headers, forms, and streams that follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Final
from urllib.parse import urlencode

import falcon
import gevent
from markupsafe import Markup

from orchestrator import __version__
from orchestrator.api.access import CSRF_FIELD, Access, Who
from orchestrator.api.problems import Problem
from orchestrator.api.reads import Shown
from orchestrator.api.streams import MEDIA_TYPE, begin_stream
from orchestrator.console.doing import Doing
from orchestrator.console.live import Full, Live, Render, Watch
from orchestrator.console.rendering import render
from orchestrator.core.engine import Engine
from orchestrator.errors import Diagnostic
from orchestrator.views.call_history import CallHistory

NAV: Final = (
    ("/", "Overview"),
    ("/calls", "Live calls"),
    ("/archive", "Ended calls"),
    ("/registrations", "Registrations"),
    ("/gateways", "Gateways and servers"),
    ("/flows", "Flows"),
    ("/catalogue", "Events"),
    ("/operations", "Operations"),
)
SAID: Final[Mapping[str, str]] = {
    "hung_up": "The call is being hung up.",
    "removed": "Removed.",
    "added": "The contact has been added.",
    "raised": "The event has been raised.",
    "probe": "The gateway is being probed.",
    "enable": "The gateway is tried again.",
    "disable": "The gateway is not tried until it is enabled, or the server restarts.",
    "drain": "New calls are refused from now on.",
    "undrain": "Calls are taken again.",
    "log_level": "The level of the log is set.",
    "lifted": "The ban has ended.",
}
"""What a page says after something was done: by a word in its URL, so that nobody else can make it say anything."""
ROWS: Final = 50
"""Of a list on one page."""
THEME: Final = "orchestrator_theme"


def _nothing() -> Sequence[Any]:
    return ()


@dataclass(frozen=True, slots=True)
class Desk:
    """What the pages are made of: one server, and who looks at it."""

    shown: Shown
    history: CallHistory
    doing: Doing
    access: Access
    queues: Callable[[], Sequence[Mapping[str, Any]]] = _nothing
    """How busy the workers are: name, running, waiting and refused of each queue."""
    warnings: Callable[[], Sequence[Diagnostic]] = _nothing
    """What is odd in configuration and flows."""
    live: Live = field(default_factory=Live)

    @property
    def engine(self) -> Engine:
        return self.shown.engine

    @property
    def now(self) -> float:
        """The monotonic clock, in seconds."""
        return self.shown.clock()


class ConsolePage:
    """A page, or several of one kind. `here` is its place in the navigation."""

    here = ""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def show(self, request: falcon.Request, response: falcon.Response, template: str, **values: Any) -> None:
        """Answer with a template; `here` is another place in the navigation."""
        shown = self.desk.shown
        response.content_type = falcon.MEDIA_HTML
        response.cache_control = ("no-store",)
        response.text = page_text(request, shown.identity.node, template, **{"here": self.here, **values})

    def follow(
        self,
        request: falcon.Request,
        response: falcon.Response,
        name: str,
        draw: Render,
        watch: Watch | None = None,
        every: float = 1.0,
        throttle: float = 0.2,
    ) -> None:
        """Answer with a stream of what changes, which is drawn once for all who follow the same; see `live.Live`.
        Raises Problem."""
        begin_stream(request)
        try:
            topic = self.desk.live.topic(name, draw, watch, every, throttle)
        except Full:
            raise Problem(
                503, "busy", "too many different pages follow", "the page shows the state of when it was loaded"
            ) from None
        response.content_type = MEDIA_TYPE
        response.cache_control = ("no-store",)
        response.set_header("X-Accel-Buffering", "no")
        response.stream = _guarded(topic.follow(), lambda: still_there(self.desk.access, request))

    def do(self, request: falcon.Request, response: falcon.Response, method: str, *path: str, **how: Any) -> Any:
        """Have the API do something. Raises Problem."""
        return self.desk.doing.do(request, response, method, *path, **how)

    @staticmethod
    def done(response: falcon.Response, path: str, said: str) -> None:
        """After a form: show a page again, with one of SAID."""
        response.status = falcon.HTTP_303
        response.location = f"{path}{'&' if '?' in path else '?'}said={said}"


def page_text(request: falcon.Request, node: str, template: str, **values: Any) -> str:
    """A whole page for whoever asks."""
    who = getattr(request.context, "who", None)
    viewer = who if isinstance(who, Who) else NOBODY
    token = viewer.session.csrf if viewer.session is not None else ""
    return render(
        template,
        **{
            "viewer": viewer,
            "csrf": lambda: Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, token),
            "nav": NAV,
            "here": "",
            "node": node,
            "version": __version__,
            "theme": theme_of(request),
            "now_ms": round(time() * 1000),
            "said": SAID.get(request.get_param("said", default="") or "", ""),
            **values,
        },
    )


NOBODY: Final = Who("read", "")
"""Who has not signed in."""


def theme_of(request: falcon.Request) -> str:
    """dark or light as the switch was left, '' for what the browser prefers."""
    kept = request.get_cookie_values(THEME) or [""]
    return kept[0] if kept[0] in ("dark", "light") else ""


def still_there(access: Access, request: falcon.Request) -> bool:
    """Whether who asked may still look: sessions end."""
    who = getattr(request.context, "who", None)
    return not isinstance(who, Who) or who.session is None or access.session_of(request) is not None


def _guarded(stream: Iterator[bytes], allowed: Callable[[], bool]) -> Iterator[bytes]:
    for message in stream:
        if not allowed():
            yield b"event: gone\ndata: -\n\n"
            return
        yield message


class ListQuery(dict[str, str]):
    """What is searched for in a list: the parameters of its page, '' for those that are not given."""

    @classmethod
    def read(cls, request: falcon.Request, *names: str) -> ListQuery:
        found = cls()
        for name in (*names, "cursor"):
            found[name] = (request.get_param(name, default="") or "").strip()[:200]
        return found

    @property
    def all(self) -> str:
        """As it stands in a URL."""
        return urlencode({name: value for name, value in self.items() if value})

    @property
    def without_cursor(self) -> str:
        """Of the first page."""
        return self.with_cursor("")

    def with_cursor(self, cursor: str) -> str:
        """Of the page that begins there."""
        return urlencode({name: value for name, value in {**self, "cursor": cursor}.items() if value})


def breathe() -> None:
    """Calls go on between two pieces of a drawing."""
    gevent.sleep(0)


def fragment(template: str, **values: Any) -> Markup:
    """A part of a page, as text that is markup."""
    return Markup(render(template, **values))  # noqa: S704 - the template has escaped what it was given
