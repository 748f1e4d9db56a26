"""The action `http`: call a web service (FLOWLANG §4.3, §5).

Secrets may reach url, headers, query, auth and body only.
"""

from __future__ import annotations

from orchestrator.flow.registry import ACTIONS, Action, Field, Kind

HTTP = ACTIONS.add(
    Action(
        "http",
        "Call a web service.",
        short="url",
        fields=(
            Field("url", Kind.TEXT, "The address; with endpoint: what follows the endpoint's url.", secret=True),
            Field(
                "method",
                Kind.ENUM,
                "HTTP method, default GET, POST with a body.",
                values=("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"),
            ),
            Field("endpoint", Kind.ENDPOINT, "A target declared under endpoints:, by name."),
            Field("json", Kind.VALUE, "Body as JSON; '${x}' alone keeps its type.", secret=True),
            Field("form", Kind.MAP, "Body as a form.", secret=True),
            Field("body", Kind.TEXT, "Body as it is.", secret=True),
            Field("query", Kind.MAP, "Query parameters.", secret=True),
            Field("headers", Kind.MAP, "Header fields.", secret=True),
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
