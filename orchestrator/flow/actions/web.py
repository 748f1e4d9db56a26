"""The action `http`: call a web service (FLOWLANG §4.3, §5).

Secrets may reach url, headers, query, auth and body only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.flow.language.places import Place
from orchestrator.flow.language.program import Env, Step
from orchestrator.flow.language.registry import ACTIONS, Action, Field, Kind
from orchestrator.flow.run import effects
from orchestrator.flow.run.step_facts import HttpAnswered, HttpAsked
from orchestrator.flow.run.task import Steps, Task

HTTP = ACTIONS.add(
    Action(
        "http",
        "Call a web service.",
        short="url",
        fields=(
            Field(
                "url",
                Kind.TEXT,
                "The address; with endpoint: what follows the endpoint's url.",
                secret=True,
                place=Place.URL,
            ),
            Field(
                "method",
                Kind.ENUM,
                "HTTP method, default GET, POST with a body.",
                values=("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"),
            ),
            Field("endpoint", Kind.ENDPOINT, "A target declared under endpoints:, by name."),
            Field("json", Kind.VALUE, "Body as JSON; '${x}' alone keeps its type.", secret=True),
            Field("form", Kind.MAP, "Body as a form.", secret=True),
            Field(
                "body",
                Kind.TEXT,
                "Body as text; of JSON and forms, text from outside is encoded.",
                secret=True,
                place=Place.BODY,
            ),
            Field("query", Kind.MAP, "Query parameters.", secret=True),
            Field("headers", Kind.MAP, "Header fields.", secret=True, place=Place.HEADER),
            Field("auth", Kind.MAP, "Basic authentication: {user: …, password: …}.", secret=True),
            Field("timeout", Kind.DURATION, "Longest wait for each try, default 5s."),
            Field("retries", Kind.NUMBER, "Further tries after a connect error, 429 or 5xx, default 0."),
            Field("backoff", Kind.DURATION, "Pause before the first retry, doubled each time, default 200ms."),
            Field("expect", Kind.FAILOVER, "Statuses outside 2xx that are no error: 404, 4xx."),
            Field("background", Kind.BOOLEAN, "Go on at once; the request outlives the call and never fails it."),
        ),
        result="http result",
        in_on_end=True,
        waits=True,
    )
)


@HTTP.performs
def http(task: Task, step: Step) -> Steps:
    """The trace names neither URL nor values: secrets may be in any of them."""
    effect = _effect(task, step)
    task.trace(step, HttpAsked(effect.method, effect.background))
    result: Mapping[str, Any] | None = yield effect
    if result is not None:
        task.trace(step, HttpAnswered(result["status"]))
    return result


def _effect(task: Task, step: Step) -> effects.Http:
    """The step's own keys over those of its endpoint over the defaults of the program."""
    resources, args, env = task.run.program.resources, step.args, task.env
    endpoint = resources.endpoints[args["endpoint"]] if "endpoint" in args else {}

    def either(name: str, default: Any) -> Any:
        value = args.get(name, endpoint.get(name))
        return default if value is None else _evaluated(value, env)

    def both(name: str) -> dict[str, str]:
        entries = {**endpoint.get(name, {}), **args.get(name, {})}
        return {key: _as_text(_evaluated(value, env)) for key, value in entries.items()}

    auth = both("auth")
    has_body = any(name in args for name in ("json", "form", "body"))
    return effects.Http(
        method=args.get("method", "POST" if has_body else "GET"),
        url=(_evaluated(endpoint["url"], env) if endpoint else "") + task.value(step, "url", ""),
        headers=both("headers"),
        query=both("query"),
        json=task.value(step, "json"),
        form=both("form") if "form" in args else None,
        body=task.value(step, "body"),
        auth=(auth.get("user", ""), auth.get("password", "")) if auth else None,
        timeout=either("timeout", resources.defaults.get("http_timeout", 5.0)),
        retries=either("retries", 0),
        backoff=either("backoff", 0.2),
        expect=args.get("expect", ()),
        background=task.value(step, "background", False),
    )


def _evaluated(value: Any, env: Env) -> Any:
    """A key of a step is compiled; those of an endpoint are, where text may hold ${…}, and plain values elsewhere."""
    return value.evaluate(env) if hasattr(value, "evaluate") else value


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
