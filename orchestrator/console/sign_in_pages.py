"""Who looks at the console has signed in with a token; the browser keeps a session for it."""

from __future__ import annotations

from urllib.parse import urlencode

import falcon

from orchestrator.api.access import COOKIE, client_of
from orchestrator.api.bodies import form_of
from orchestrator.api.problems import Problem
from orchestrator.console.console_page import ConsolePage

PATH = "/sign-in"


class SignIn(ConsolePage):
    """`/sign-in`: the form, and what becomes of it."""

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        if self.desk.access.session_of(request) is not None:
            raise falcon.HTTPSeeOther("/")
        self._ask(request, response)

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        form = form_of(request)
        try:
            session = self.desk.access.sign_in(form.get("token", ""), client_of(request))
        except Problem as refused:
            response.status = refused.status
            response.set_headers(refused.headers or {})
            self._ask(request, response, f"{refused.description}: {refused.cure}.")
            return
        if session is None:
            response.status = falcon.HTTP_403
            self._ask(request, response, "This is not a token of this server.")
            return
        self.desk.access.set_cookie(request, response, session)
        response.status = falcon.HTTP_303
        response.location = _own_path(form.get("next"))

    def _ask(self, request: falcon.Request, response: falcon.Response, wrong: str = "") -> None:
        self.show(request, response, "sign_in.html", wrong=wrong, next=_own_path(request.get_param("next")))


class SignOut(ConsolePage):
    """`/sign-out`"""

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        session = self.desk.access.session_of(request)
        if session is not None:
            self.desk.access.sign_out(session)
        response.unset_cookie(COOKIE, path="/", same_site="Strict")
        response.status = falcon.HTTP_303
        response.location = PATH


def page_for(path: str) -> str:
    """The sign-in page that leads to another one."""
    return PATH if path in ("", "/") else f"{PATH}?{urlencode({'next': path})}"


def _own_path(path: object) -> str:
    """Where to go on: a path of ours, never another server's."""
    text = path if isinstance(path, str) else ""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and len(text) < 500
    return text if is_ours and "\\" not in text else "/"
