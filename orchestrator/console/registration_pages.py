"""Registrations: who is registered, and where; removed, added and pushed to by hand."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import falcon

from orchestrator.console.console_page import ROWS, ConsolePage, ListQuery, breathe
from orchestrator.console.forms import Form
from orchestrator.views.listing import Page
from orchestrator.views.registration_list import registration, registrations


class Registrations(ConsolePage):
    """`/registrations`"""

    here = "/registrations"

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        query = ListQuery.read(request, "of")
        self.show(request, response, "registrations.html", query=query, page=self._page(query))

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Add a contact."""
        form = Form(request)
        aor = self.desk.engine.network.home_aor(form.text("aor").removeprefix("sip:"))
        expires, q = form.number("expires", 3600.0), form.number("q", 1.0)
        body = {"contact": form.text("contact"), "expires": expires, "q": q}
        self.do(request, response, "POST", "registrations", aor, body=body)
        self.done(response, path_of(aor), "added")

    def _page(self, query: ListQuery) -> Page:
        listing = registrations(self.desk.engine, self.desk.now, query["of"])
        try:
            return listing.page(ROWS, query["cursor"], breathe)
        except ValueError:
            query["cursor"] = ""
            return listing.page(ROWS, "", breathe)


class Registration(ConsolePage):
    """`/registrations/{aor}` with `/remove` and `/push`."""

    here = "/registrations"

    def on_get(self, request: falcon.Request, response: falcon.Response, aor: str) -> None:
        self._show(request, response, aor)

    def on_post_remove(self, request: falcon.Request, response: falcon.Response, aor: str) -> None:
        aor = self._home(aor)
        self.do(request, response, "DELETE", "registrations", aor, query={"contact": Form(request).text("contact")})
        self.done(response, path_of(aor), "removed")

    def on_post_push(self, request: falcon.Request, response: falcon.Response, aor: str) -> None:
        told = self.do(request, response, "POST", "push", body={"to": self._home(aor), "kind": "call"})
        self._show(request, response, aor, told["phones"])

    def _show(self, request: falcon.Request, response: falcon.Response, aor: str, pushed: Any = None) -> None:
        found = registration(self.desk.engine, self._home(aor), self.desk.now)
        if not found["contacts"]:
            response.status = falcon.HTTP_404
        self.show(request, response, "registration.html", aor=found["aor"], contacts=found["contacts"], pushed=pushed)

    def _home(self, aor: str) -> str:
        return self.desk.engine.network.home_aor(aor)


def path_of(aor: str) -> str:
    """Of the page of an address of record."""
    return f"/registrations/{quote(aor, safe='@')}"
