"""The types of FlowLang values, as the checker sees them and as messages print them (FLOWLANG §3, §8).

A type is known for every name before a call is made; at run time there are only plain values (text and digits are
`str`, a duration is float seconds, a time is seconds since 1970). `digits` is text that may be compared with a number
literal: telephone numbers and keys are digits, so `event.digit != 2` means what an operator means. An enum is text
with known values. `any` switches the checks off for one value (JSON from outside, an event that could not be found);
its values are then checked when they are used. `nothing` is the type of the items of `[]`: it fits everywhere.

An optional type is one whose value may be null. It prints as "text or nothing" and has to be given a default or be
tested before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from orchestrator.flow.expr.origin import ADDRESSED, OURS, REGISTERED, THEIRS, Origin, join

Kind = Literal[
    "text",
    "digits",
    "number",
    "bool",
    "duration",
    "time",
    "list",
    "map",
    "contact",
    "uri",
    "aor",
    "tel",
    "record",
    "enum",
    "null",
    "any",
    "nothing",
]

_TEXTUAL = frozenset({"text", "digits", "uri", "aor", "tel", "enum"})
_OURS = frozenset({"number", "bool", "duration", "time", "enum", "null", "nothing"})
"""Types whose values nobody can write anything into."""
_PRINTED = {"bool": "true/false", "null": "nothing", "any": "anything"}


@dataclass(frozen=True, slots=True)
class Type:
    """One type. `item` belongs to list and map, `fields` to record and contact, `values` to enum, `name` to record."""

    kind: Kind
    optional: bool = False
    item: Type | None = None
    fields: Mapping[str, Type] = field(default_factory=dict, hash=False)
    values: tuple[str, ...] = ()
    name: str = ""
    origin: Origin = field(default=OURS, compare=False)
    """Who has written the value. It is no part of what the type is: types of both origins are equal."""

    @property
    def required(self) -> Type:
        """The same type without "or nothing"."""
        return replace(self, optional=False) if self.optional else self

    @property
    def textual(self) -> bool:
        """Whether values are `str` at run time: text, digits, uri, aor, tel, enum."""
        return self.kind in _TEXTUAL

    @property
    def items(self) -> Type:
        """Type of the items of a list or of the values of a map; anything when it was not said."""
        return mixed(self.item or ANY, self.origin)

    def __str__(self) -> str:
        printed = self._printed()
        return f"{printed} or nothing" if self.optional else printed

    def _printed(self) -> str:
        if self.kind == "enum":
            return "/".join(self.values)
        if self.kind in ("list", "map"):
            plain = self.items.kind in ("any", "nothing")
            return self.kind if plain else f"{self.kind} of {self.items}"
        return self.name or _PRINTED.get(self.kind, self.kind)


TEXT = Type("text")
DIGITS = Type("digits")
NUMBER = Type("number")
BOOL = Type("bool")
DURATION = Type("duration")
TIME = Type("time")
URI = Type("uri")
AOR = Type("aor")
TEL = Type("tel")
ANY = Type("any")
NULL = Type("null")
NOTHING = Type("nothing")


def optional(type: Type) -> Type:
    """The type with "or nothing"; anything and null hold null already."""
    return type if type.optional or type.kind in ("any", "null") else replace(type, optional=True)


def list_of(item: Type) -> Type:
    return Type("list", item=item)


def map_of(item: Type) -> Type:
    """A map from text to `item`; reading a key gives `item or nothing`."""
    return Type("map", item=item)


def enum(*values: str) -> Type:
    return Type("enum", values=values)


def record(name: str, fields: Mapping[str, Type]) -> Type:
    """A value with fixed attributes; `name` is what messages call it (`relay result`)."""
    return Type("record", fields=dict(fields), name=name)


# --- origins ----------------------------------------------------------------------------------------------------------


def mixed(type: Type, origin: Origin) -> Type:
    """The type of a value that something of this origin has gone into."""
    if not origin.outside or type.kind in _OURS:
        return type
    return replace(type, origin=join(type.origin, origin))


def with_origin(type: Type, origin: Origin) -> Type:
    """The type with this origin and no other, of a text or of anything."""
    return type if type.kind in _OURS or type.origin == origin else replace(type, origin=origin)


def theirs(type: Type, origin: Origin = THEIRS) -> Type:
    """The type of a value that a stranger has written, with all that is in it."""
    item = theirs(type.item, origin) if type.item is not None else None
    fields = {name: theirs(field, origin) for name, field in type.fields.items()}
    return replace(mixed(type, origin), item=item, fields=fields)


def origin_of(type: Type) -> Origin:
    """The origin of a value and of all that is in it."""
    if type.kind in _OURS:
        return OURS
    found = type.origin
    if type.item is not None:
        found = join(found, origin_of(type.item))
    for each in type.fields.values():
        found = join(found, origin_of(each))
    return found


def text_origin(type: Type) -> Origin:
    """The origin of a text or of the items of a list; a contact is itself ours, whatever its phone says of itself."""
    if type.kind == "list" and type.item is not None:
        return join(type.origin, text_origin(type.item))
    return OURS if type.kind in _OURS else type.origin


def _either(type: Type, left: Type, right: Type) -> Type:
    """`type`, which holds both, with the origins of both."""
    found = mixed(mixed(type, left.origin), right.origin)
    if found.item is not None:
        sides = [side.item for side in (left, right) if side.item is not None]
        found = replace(found, item=_either(found.item, sides[0], sides[-1])) if sides else found
    if found.fields and left.fields is not right.fields and left.fields.keys() == right.fields.keys():
        pairs = {name: _either(each, left.fields[name], right.fields[name]) for name, each in found.fields.items()}
        found = replace(found, fields=pairs)
    return found


CONTACT = Type(
    "contact",
    fields={
        "aor": with_origin(TEXT, ADDRESSED),
        "contact": with_origin(TEXT, REGISTERED),  # as a destination it is ours, elsewhere its phone has written it
        "uri": with_origin(TEXT, REGISTERED),
        "expires": NUMBER,
        "q": NUMBER,
        "user_agent": theirs(TEXT),
        "path": theirs(optional(TEXT)),
        "mobile": BOOL,
        "instance": theirs(optional(TEXT)),
        "extra": theirs(map_of(TEXT)),
    },
)
"""A registered contact: the attributes of `registered` that stay true while the binding lives."""

_WORDS = {
    "text": TEXT,
    "digits": DIGITS,
    "number": NUMBER,
    "int": NUMBER,
    "bool": BOOL,
    "true/false": BOOL,
    "duration": DURATION,
    "time": TIME,
    "list": list_of(ANY),
    "map": map_of(ANY),
    "contact": CONTACT,
    "contacts": list_of(CONTACT),
    "aor": AOR,
    "uri": URI,
    "tel": TEL,
    "any": ANY,
}

TYPE_WORDS = tuple(_WORDS)
"""The words `parse_type` knows, for suggestions."""


def parse_type(text: str) -> Type:
    """The type a declaration names: `digits`, `optional text`, `list of digits`, `map of text`.

    Raises:
        ValueError: a word that is no type; the message is the word.
    """
    text = text.strip()
    for prefix, make in (("optional ", optional), ("list of ", list_of), ("map of ", map_of)):
        if text.startswith(prefix):
            return make(parse_type(text[len(prefix) :]))
    found = _WORDS.get(text)
    if found is None:
        raise ValueError(text)
    return found


def assignable(value: Type, target: Type) -> bool:
    """Whether a value of one type may be kept where the other is declared.

    Text and digits go both ways (digits is text that compares with numbers, its letters are not restricted); an enum
    only takes values it has.
    """
    if "any" in (value.kind, target.kind):
        return True
    if value.kind == "nothing":
        return True
    if value.kind == "null":
        return target.optional or target.kind == "null"
    if value.optional and not target.optional:
        return False
    if target.kind == "enum":
        return value.kind == "enum" and set(value.values) <= set(target.values)
    if value.textual and target.textual:
        return True
    if value.kind != target.kind:
        return False
    if value.kind in ("list", "map"):
        return assignable(value.items, target.items)
    if value.kind == "record":
        return all(name in value.fields and assignable(value.fields[name], t) for name, t in target.fields.items())
    return True


def comparable(left: Type, right: Type) -> bool:
    """Whether `==` between the two can ever be true, null set aside."""
    if {left.kind, right.kind} & {"any", "nothing"}:
        return True
    if left.textual and right.textual:
        return True
    if left.kind == "list" and right.kind == "list":
        return comparable(left.items, right.items)
    return left.kind == right.kind and left.kind in ("number", "bool", "duration", "time")


def unify(left: Type, right: Type) -> Type | None:
    """The type that holds both, or None: for list items and the two results of `a ? b : c` and `a ?? b`."""
    both = _unified(left, right)
    return both if both is None or left is right else _either(both, left, right)


def _unified(left: Type, right: Type) -> Type | None:
    if left == right or right.kind == "nothing":
        return left
    if left.kind == "nothing":
        return right
    if "any" in (left.kind, right.kind):
        return ANY
    if left.kind == "null" or right.kind == "null":
        return optional(right if left.kind == "null" else left)
    both = _unify_required(left.required, right.required)
    return optional(both) if both and (left.optional or right.optional) else both


def _unify_required(left: Type, right: Type) -> Type | None:
    if left == right:
        return left
    if left.kind == right.kind == "enum":
        return enum(*dict.fromkeys(left.values + right.values))
    if left.textual and right.textual:
        return TEXT
    if left.kind == right.kind and left.kind in ("list", "map"):
        item = unify(left.items, right.items)
        return Type(left.kind, item=item) if item else None
    return None
