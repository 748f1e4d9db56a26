"""Operations: reload, level of the log, drain, bans."""

from __future__ import annotations

from typing import Any

import falcon

from orchestrator.api.problems import Problem
from orchestrator.console.console_page import ConsolePage
from orchestrator.console.forms import Form
from orchestrator.console.overview_page import status_of

LEVELS = ("debug", "info", "warning", "error")


class Operations(ConsolePage):
    """`/operations` and what it does."""

    here = "/operations"

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        self._show(request, response)

    def on_post_reload(self, request: falcon.Request, response: falcon.Response) -> None:
        try:
            reloaded = self.do(request, response, "POST", "reload")
        except Problem as refused:
            response.status = refused.status
            told = {"diagnostics": [], "detail": "", **refused.to_dict()}
            self._show(request, response, refused=told)
            return
        self._show(request, response, reloaded=reloaded)

    def on_post_drain(self, request: falcon.Request, response: falcon.Response) -> None:
        self.do(request, response, "POST", "drain")
        self.done(response, "/operations", "drain")

    def on_post_undrain(self, request: falcon.Request, response: falcon.Response) -> None:
        self.do(request, response, "DELETE", "drain")
        self.done(response, "/operations", "undrain")

    def on_post_log_level(self, request: falcon.Request, response: falcon.Response) -> None:
        self.do(request, response, "PUT", "loglevel", body={"level": Form(request).text("level")})
        self.done(response, "/operations", "log_level")

    def on_post_lift_ban(self, request: falcon.Request, response: falcon.Response) -> None:
        self.do(request, response, "DELETE", "bans", query={"source": Form(request).text("source")})
        self.done(response, "/operations", "lifted")

    def _level(self, request: falcon.Request, response: falcon.Response) -> str:
        can = self.desk.doing.can("GET", "loglevel")
        return str(self.do(request, response, "GET", "loglevel")["level"]) if can else ""

    def _show(self, request: falcon.Request, response: falcon.Response, **values: Any) -> None:
        self.show(
            request,
            response,
            "operations.html",
            **{
                "status": status_of(self.desk),
                "level": self._level(request, response),
                "levels": LEVELS,
                "bans": self.do(request, response, "GET", "bans", query={"limit": 200, "cursor": ""}).items,
                "refused": None,
                "reloaded": None,
                **values,
            },
        )
