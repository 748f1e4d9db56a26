"""The console over a world in memory: pages are asked for in this process, by somebody who has signed in."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from falcon.testing import Result, TestClient

from orchestrator.console.console_page import Desk
from orchestrator.console.console_routes import add_console
from orchestrator.console.doing import Doing
from orchestrator.testing.api_stage import READ_TOKEN, TOKEN, ApiStage

QUEUES = [{"name": "http", "running": 1, "waiting": 2, "refused": 0}]


class ConsoleStage(ApiStage):
    """An API, and the console beside it."""

    def __init__(self, flows: str = "flowlang: 1\n", **settings: Any) -> None:
        super().__init__(flows, **settings)
        self.history = self.shown.history
        self.desk = Desk(self.shown, self.shown.history, Doing(self.endpoints), self.access, lambda: QUEUES)
        add_console(self.app, self.desk)


class Browser:
    """Somebody with a browser: keeps cookies, sends the CSRF token of the page it has seen last."""

    def __init__(self, stage: ConsoleStage, token: str = TOKEN) -> None:
        self.client = TestClient(stage.app)
        self.cookies: dict[str, str] = {}
        self.csrf = ""
        if token:
            answer = self.post("/sign-in", token=token)
            assert answer.status_code == 303, answer.text
            self.get("/operations" if token == TOKEN else "/")

    def get(self, path: str, **headers: str) -> Result:
        answer = self._ask("GET", path, headers={"Accept": "text/html", **headers})
        found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
        self.csrf = found[1] if found else self.csrf
        return answer

    def page(self, path: str) -> str:
        """The text of a page that is there."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status, answer.text[:500])
        assert answer.headers["content-type"].startswith("text/html")
        return answer.text

    def post(self, path: str, **fields: str) -> Result:
        """A form as the page sends it."""
        body = urlencode({"csrf": self.csrf, **fields})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
        return self._ask("POST", path, body=body, headers={**headers, "Origin": "http://localhost"})

    def _ask(self, method: str, path: str, *, headers: dict[str, str], body: str | None = None) -> Result:
        path, _, query = path.partition("?")
        sent = {"Host": "localhost", **headers}
        answer = self.client.simulate_request(
            method, path, query_string=query, body=body, headers=sent, cookies=self.cookies
        )
        for name, cookie in answer.cookies.items():
            self.cookies[name] = cookie.value
            if not cookie.value:
                del self.cookies[name]
        return answer


def reader(stage: ConsoleStage) -> Browser:
    """Somebody who may only look."""
    return Browser(stage, READ_TOKEN)
