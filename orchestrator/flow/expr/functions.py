"""The functions of expressions: one entry says what a function takes, gives, and how it is written in the generated
code.

Everything is a method (`x.lower()`); size, string and int may also be written around their value, as in CEL. Functions
that keep their text's alphabet keep its type: what is left of digits after `drop(2)` is still digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.flow.expr.origin import OURS
from orchestrator.flow.expr.types import BOOL, DIGITS, NUMBER, TEXT, Type, list_of, with_origin

UNSAFE = "unsafe"
"""The function by which the writer of a flow vouches for text from outside."""

Group = Literal["text", "list", "map", "number", "bool", "time"]


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    `code` is Python source over {0} (the value), {1}, {2} …; empty when the generator writes it from the argument's
    type.
    """

    name: str
    doc: str
    takes: tuple[Group, ...]
    parameters: tuple[Type, ...]
    result: Type | Literal["same", "list of same"]
    code: str
    optional: int = 0
    """How many of the last parameters may be left out."""
    prefix: bool = False
    """May be written `name(x)`."""
    pattern: bool = False
    """Its argument is a constant pattern, compiled at load."""

    def result_for(self, value: Type) -> Type:
        """The type of the result when the value has this type."""
        if isinstance(self.result, Type):
            return self.result
        kept = with_origin(value, OURS) if value.kind in ("text", "digits") else DIGITS if value.kind == "tel" else TEXT
        return kept if self.result == "same" else list_of(kept)


_ALL: tuple[Function, ...] = (
    Function("lower", "The text in lower case.", ("text",), (), "same", "limit({0}.lower())"),
    Function("upper", "The text in upper case.", ("text",), (), "same", "limit({0}.upper())"),
    Function("trim", "The text without blanks at both ends.", ("text",), (), "same", "{0}.strip()"),
    Function("contains", "Whether a text stands in it.", ("text",), (TEXT,), BOOL, "({1} in {0})"),
    Function("startsWith", "Whether it starts with a text.", ("text",), (TEXT,), BOOL, "{0}.startswith({1})"),
    Function("endsWith", "Whether it ends with a text.", ("text",), (TEXT,), BOOL, "{0}.endswith({1})"),
    Function("like", "Whether it fits a pattern of * and ?.", ("text",), (TEXT,), BOOL, "{1}({0})", pattern=True),
    Function(
        "matches",
        "Whether a part of it fits a regular expression (RE2 syntax; use ^ and $ for the whole text).",
        ("text",),
        (TEXT,),
        BOOL,
        "({1}({0}) is not None)",
        pattern=True,
    ),
    Function("replace", "Each place of a text replaced.", ("text",), (TEXT, TEXT), "same", "replace({0}, {1}, {2})"),
    Function("split", "The parts between separators.", ("text",), (TEXT,), "list of same", "split({0}, {1})"),
    Function("prefix", "The first n characters.", ("text",), (NUMBER,), "same", "prefix({0}, {1})"),
    Function("drop", "The text without its first n characters.", ("text",), (NUMBER,), "same", "drop({0}, {1})"),
    Function("join", "The items as one text.", ("list",), (TEXT,), TEXT, "join({0}, {1})", optional=1),
    Function("size", "Characters, items or keys.", ("text", "list", "map"), (), NUMBER, "len({0})", prefix=True),
    Function("string", "The value as text.", ("text", "number", "bool", "time"), (), TEXT, "", prefix=True),
    Function(
        "unsafe",
        "The text as it is, in a place that the engine would encode it for, or where it would be refused (E212).",
        ("text",),
        (),
        "same",
        "{0}",
        prefix=True,
    ),
    Function("int", "The value as a whole number.", ("text", "number", "time"), (), NUMBER, "to_int({0})", prefix=True),
)

FUNCTIONS = {function.name: function for function in _ALL}
"""Every function by name, for checker, completion and documentation."""


def group_of(type: Type) -> Group | None:
    """The group of types a function is declared for; durations and times go together."""
    if type.textual:
        return "text"
    if type.kind in ("duration", "time"):
        return "time"
    if type.kind == "number" or type.kind == "bool" or type.kind == "list" or type.kind == "map":
        return type.kind
    return None
