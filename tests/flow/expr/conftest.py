"""Names with types, and values for them, as a flow inside a call sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.flow.expr import (
    ANY,
    BOOL,
    CONTACT,
    DIGITS,
    DURATION,
    NUMBER,
    TEXT,
    TIME,
    URI,
    ExprError,
    Scope,
    Type,
    compile_expression,
    compile_template,
    enum,
    list_of,
    map_of,
    optional,
    record,
)

ADDRESS = record("address", {"user": DIGITS, "host": TEXT, "aor": TEXT, "uri": URI})
EVENT = record(
    "event",
    {
        "digit": DIGITS,
        "leg": enum("caller", "callee"),
        "aor": TEXT,
        "contact": TEXT,
        "uri": TEXT,
        "mobile": BOOL,
        "expires": NUMBER,
        "lasted": DURATION,
        "at": TIME,
        "group": optional(DIGITS),
        "target": optional(DIGITS),
        "headers": map_of(TEXT),
        "data": ANY,
        "tags": list_of(TEXT),
    },
)
CALL = record(
    "call",
    {
        "id": TEXT,
        "from": ADDRESS,
        "to": ADDRESS,
        "target": ADDRESS,
        "domain": TEXT,
        "user": optional(TEXT),
        "headers": map_of(TEXT),
        "duration": DURATION,
        "state": enum("new", "ringing", "answered", "ended"),
        "started_at": TIME,
        "fs": record("FreeSWITCH side", {"vars": map_of(TEXT)}),
    },
)
NAMES: dict[str, Type] = {
    "call": CALL,
    "event": EVENT,
    "phone": optional(EVENT),
    "contact": CONTACT,
    "vars": record("vars", {"n": NUMBER, "tries": NUMBER, "who": TEXT, "low": BOOL, "limit": DURATION}),
    "groups": record("groups", {"sales": list_of(DIGITS), "front-desk": list_of(DIGITS)}),
    "out": record(
        "relay result", {"outcome": enum("answered", "busy"), "tried": list_of(TEXT), "gateway": optional(TEXT)}
    ),
    "found": list_of(CONTACT),
    "json": ANY,
    "now": TIME,
}
ALICE = {"user": "alice", "host": "example.com", "aor": "alice@example.com", "uri": "sip:alice@example.com"}
OFFICE = {
    "user": "0049301234",
    "host": "example.com",
    "aor": "0049301234@example.com",
    "uri": "sip:0049301234@example.com",
}
PHONE = {
    "digit": "2",
    "leg": "callee",
    "aor": "bob@example.com",
    "contact": "sip:bob@10.0.0.5",
    "uri": "sip:bob@10.0.0.5",
    "mobile": True,
    "expires": 3600,
    "lasted": 1.5,
    "at": 1_000_000_000,
    "group": None,
    "target": "101",
    "headers": {"X-Id": "7"},
    "data": {"n": 2, "digits": "2", "list": [1, 2], "none": None, "yes": True},
    "tags": ["a", "b"],
}
VALUES: dict[str, Any] = {
    "call": {
        "id": "call-1",
        "from": ALICE,
        "to": OFFICE,
        "target": OFFICE,
        "domain": "example.com",
        "user": None,
        "headers": {"X-Id": "42", "Empty": ""},
        "duration": 61.25,
        "state": "answered",
        "started_at": 1_000_000_000,
        "fs": {"vars": {"sound_prefix": "/sounds"}},
    },
    "event": PHONE,
    "phone": None,
    "contact": {"aor": "bob@example.com", "contact": "sip:bob@10.0.0.5", "uri": "sip:bob@10.0.0.5", "mobile": False},
    "vars": {"n": 3, "tries": 0, "who": "carol", "low": False, "limit": 90.0},
    "groups": {"sales": ["101", "102", "007"], "front-desk": []},
    "out": {"outcome": "busy", "tried": ["a", "b"], "gateway": None},
    "found": [{"uri": "sip:a", "expires": 30}, {"uri": "sip:b", "expires": 60}],
    "json": {"name": "bob", "n": 2, "list": ["x", {"y": "2"}], "deep": {"a": {"b": None}}},
    "now": 1_000_000_060,
}


@pytest.fixture(scope="session")
def scope() -> Scope:
    return Scope(NAMES, flow="main")


@pytest.fixture(scope="session")
def values() -> dict[str, Any]:
    return VALUES


@pytest.fixture(scope="session")
def value(scope: Scope) -> Callable[..., Any]:
    """The value of an expression; keyword arguments replace root values."""

    def of(text: str, **roots: Any) -> Any:
        return compile_expression(text, scope).evaluate({**VALUES, **roots})

    return of


@pytest.fixture(scope="session")
def written(scope: Scope) -> Callable[..., str]:
    """A text with `${…}`, worked out."""

    def of(text: str, **roots: Any) -> str:
        result = compile_template(text, scope, TEXT).evaluate({**VALUES, **roots})
        assert isinstance(result, str)
        return result

    return of


@pytest.fixture(scope="session")
def type_of(scope: Scope) -> Callable[[str], str]:
    """The type of an expression, as messages print it."""
    return lambda text: str(compile_expression(text, scope).type)


@pytest.fixture(scope="session")
def refusal(scope: Scope) -> Callable[..., ExprError]:
    """The error an expression is refused with."""

    def of(text: str, expected: Type | None = None, template: bool = False, **options: Any) -> ExprError:
        with pytest.raises(ExprError) as caught:
            (compile_template if template else compile_expression)(text, options.get("scope", scope), expected)
        return caught.value

    return of
