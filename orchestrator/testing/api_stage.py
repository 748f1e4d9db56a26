"""The API over a world in memory: requests are answered in this process, turns run at once, the clock is the world's.

    stage = ApiStage(flows)
    stage.world.phone("alice@example.com", "10.0.0.2").register()
    assert stage.get("registrations").json["total"] == 1

`serve()` puts it behind a socket, for clients of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from falcon.testing import Result, TestClient

from orchestrator.api.access import Access
from orchestrator.api.actions import Actions, Operations, ReloadOutcome
from orchestrator.api.reads import Shown
from orchestrator.api.routes import PREFIX, add_api
from orchestrator.archive.ended_calls import EndedCalls
from orchestrator.errors import OrchestratorError
from orchestrator.events.event import EventSpec
from orchestrator.flow.loader import Source, load_sources
from orchestrator.runtime.admin import Admin, Health, admin_app
from orchestrator.runtime.incoming import Incoming
from orchestrator.runtime.metrics import Metrics
from orchestrator.runtime.pushes import HandPushes
from orchestrator.runtime.siptrace import SipTrace
from orchestrator.testing.case_from_trace import case_from_trace
from orchestrator.testing.world import World
from orchestrator.views.call_history import CallHistory
from orchestrator.views.node_status import Identity, Samples

TOKEN: Final = "full-token-0123456789"  # noqa: S105  # of a world in memory
READ_TOKEN: Final = "read-token-0123456789"  # noqa: S105
NODE: Final = "node1"


def _nothing_read() -> ReloadOutcome:
    raise OrchestratorError("a world in memory has no files")


class ApiStage:
    """A world, and the API of its engine."""

    def __init__(
        self,
        flows: str = "flowlang: 1\n",
        *,
        token: str | None = TOKEN,
        read_token: str | None = READ_TOKEN,
        events: Sequence[EventSpec] | None = None,
        world: World | None = None,
        **settings: Any,
    ) -> None:
        """`settings`: those of the world (`orchestrator.testing.world`)."""
        if world is None:
            program, _ = load_sources([Source("x.flow.yaml", flows)], events=events)
            world = World(program, **settings)
        self.world = world
        engine = world.engine
        engine.flows.launch()
        self.room = True
        """Whether there is room for one more input."""
        self.health, self.samples = Health(), Samples()
        self.access = Access(token, read_token, clock=lambda: world.now)
        self.incoming = Incoming(engine, self._offer)
        self.siptrace = SipTrace(False, engine.history)
        identity = Identity(NODE, world.now + engine.settings.wall_offset)
        history = CallHistory(engine)
        self.ended = EndedCalls(history)
        self.shown = Shown(
            engine,
            identity,
            self.health,
            self.samples,
            self.siptrace,
            lambda trace: case_from_trace(trace, Path(trace["file"]).parent),
            history,
            self.ended,
            lambda: world.now,
        )
        pushes = HandPushes(engine.pusher, engine.registrations.bindings_of, self._post)
        self.level = "info"
        self.reload: Callable[[], ReloadOutcome] = _nothing_read
        """What a reload does; it raises OrchestratorError."""
        operations = Operations(lambda: self.reload(), lambda: self.level, self._set_level, lambda: False)
        self.actions = Actions(engine, self._post, self.incoming, pushes, operations)
        self.app = admin_app(self.health, Metrics())
        self.endpoints = add_api(self.app, self.access, self.shown, self.actions)
        self.client = TestClient(self.app)
        self.admin: Admin | None = None

    def _set_level(self, level: str) -> None:
        self.level = level

    def _post(self, receive: Any, *arguments: Any) -> None:
        receive(*arguments, self.world.now)
        self.world.run()

    def _offer(self, receive: Any, *arguments: Any) -> bool:
        if self.room:
            receive(*arguments, self.world.now)
        return self.room

    def serve(self) -> str:
        """Answer on a socket from now on, until `close`; returns its `host:port`."""
        self.admin = Admin("127.0.0.1", 0, self.health, Metrics())
        add_api(self.admin.app, self.access, self.shown, self.actions)
        self.admin.start()
        return f"{self.admin.address[0]}:{self.admin.address[1]}"

    def close(self) -> None:
        if self.admin is not None:
            self.admin.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> Result:
        """One request; `path` is one of the API, or begins with a slash. A body that is no octets is sent as JSON."""
        sent = {"Host": "localhost", **(headers or {})}
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        path, _, query = path.partition("?")
        path = path if path.startswith("/") else PREFIX + path
        return self.client.simulate_request(method, path, query_string=query, body=body, headers=sent)

    def get(self, path: str, **options: Any) -> Result:
        return self.ask("GET", path, **options)

    def items(self, path: str) -> list[dict[str, Any]]:
        """Those of a list."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json["items"]
        return found
