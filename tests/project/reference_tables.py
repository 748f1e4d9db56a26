"""The tables of docs/language.md, made from the registries that checker, schema and engine read.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. `python tests/project/reference_tables.py` writes them
anew; test_reference.py says when that is due.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow import actions as _actions  # noqa: F401  # fills the registry
from orchestrator.flow.expr.functions import FUNCTIONS
from orchestrator.flow.expr.types import Type
from orchestrator.flow.language.context import CALL, ERROR, REQUEST, attribute_type
from orchestrator.flow.language.limits import Limits
from orchestrator.flow.language.registry import ACTIONS, Field, Kind
from orchestrator.flow.language.sections import COMMON_FIELDS, FLOW_FIELDS, SECTIONS

GIVES = {"same": "text, or digits of digits", "list of same": "list of text, or of digits"}
"""What functions give that keep the alphabet of their text."""

PAGE = Path(__file__).parents[2] / "docs" / "language.md"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def names(fields: Iterable[Field], without: str | None = None) -> str:
    """Field names; those that have to be given are marked with *. The map of `set:` has no key of its own."""
    written = [field for field in fields if field.name != without and field.kind is not Kind.ASSIGN]
    return " ".join(f"`{field.name}`{'*' if field.required else ''}{'†' if field.planned else ''}" for field in written)


def actions() -> str:
    rows = (
        (
            f"`{action.name}`{'†' if action.handler is None else ''}",
            f"`{action.short}`" if action.short else "",
            names(action.fields, action.short),
            names(action.beside),
            action.doc + (f" → {action.result}" if action.result else ""),
        )
        for action in ACTIONS
    )
    return table(("action", "short for", "more keys under it", "keys beside it", "what it does"), rows)


def events() -> str:
    rows = (
        (
            f"`{spec.name}`",
            "this call" if spec.scope == "call" else "all calls",
            spec.doc,
            ", ".join(f"{name}: {attribute_type(attribute)}" for name, attribute in spec.attributes.items()),
        )
        for spec in BUILTIN_EVENTS
    )
    return table(("event", "of", "what has happened", "attributes"), rows)


def functions() -> str:
    rows = []
    for function in FUNCTIONS.values():
        needed = len(function.parameters) - function.optional
        given = [str(type) for type in function.parameters[:needed]]
        given += [f"[{type}]" for type in function.parameters[needed:]]
        call = f"x.{function.name}({', '.join(given)})"
        shown = f"`{call}`" + (f" or `{function.name}(x)`" if function.prefix else "")
        takes, gives = (
            ", ".join(function.takes).replace("bool", "true/false"),
            GIVES.get(function.result, function.result),
        )
        rows.append((shown, takes, str(gives), function.doc))
    return table(("function", "x is", "gives", "what it does"), rows)


def fields_of(fields: Iterable[Field]) -> str:
    return table(("key", "meaning"), ((f"`{field.name}`", field.doc) for field in fields))


def record(type: Type) -> str:
    return ", ".join(f"`{name}`: {field}" for name, field in type.fields.items())


def roots() -> str:
    return table(
        ("name", "fields"), (("`call`", record(CALL)), ("`request`", record(REQUEST)), ("`error`", record(ERROR)))
    )


def limits() -> str:
    defaults = Limits()
    values = ((name, getattr(defaults, name)) for name in Limits.__slots__)
    return table(("limit", "default"), ((f"`{name}`", f"{value:,}") for name, value in values))


TABLES: dict[str, Callable[[], str]] = {
    "sections": lambda: table(("section", "what stands in it"), ((f"`{name}`", doc) for name, doc in SECTIONS.items())),
    "flow": lambda: fields_of(FLOW_FIELDS),
    "common": lambda: fields_of(COMMON_FIELDS),
    "actions": actions,
    "events": events,
    "functions": functions,
    "roots": roots,
    "limits": limits,
}


def filled(text: str) -> str:
    """The page with its tables as they are now."""
    for name, make in TABLES.items():
        block = f"<!-- {name} -->\n{make()}\n<!-- /{name} -->"
        text = re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, block=block: block, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
