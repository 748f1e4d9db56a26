"""Gateways and FreeSWITCH servers: their states, and what can be done with a gateway."""

from __future__ import annotations

import falcon

from orchestrator.api.problems import unknown
from orchestrator.console.console_page import ConsolePage
from orchestrator.console.live import Fragments
from orchestrator.console.rendering import render
from orchestrator.views.gateway_list import gateways
from orchestrator.views.server_list import servers

VERBS = ("enable", "disable", "probe")


class Gateways(ConsolePage):
    """`/gateways`, `/gateways/live` and `/gateways/{name}/{verb}`."""

    here = "/gateways"

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        engine = self.desk.engine
        self.show(request, response, "gateways.html", gateways=gateways(engine), servers=servers(engine))

    def on_get_live(self, request: falcon.Request, response: falcon.Response) -> None:
        self.follow(request, response, "gateways", self._draw)

    def on_post_act(self, request: falcon.Request, response: falcon.Response, name: str, verb: str) -> None:
        if verb not in VERBS:
            raise unknown("path", verb)
        self.do(request, response, "POST", "gateways", name, verb)
        self.done(response, "/gateways", verb)

    def _draw(self) -> Fragments:
        engine = self.desk.engine
        found = {"servers": render("servers_rows.html", servers=servers(engine))}
        for number, gateway in enumerate(gateways(engine), 1):
            found[f"gateway-{number}-state"] = render("gateway_state.html", gateway=gateway)
            found[f"gateway-{number}-reason"] = render("gateway_reason.html", gateway=gateway)
            found[f"gateway-{number}-calls"] = render("gateway_calls.html", gateway=gateway)
        return found
