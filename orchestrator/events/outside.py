"""Events that code outside of the core makes: every attribute is held against its type before anybody hears of it.

What flows rely on is checked where it enters. Values are copied on the way, so that what the maker does with his list
later changes nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from orchestrator.events.checked import WrongValue
from orchestrator.events.event import Attribute, Event, EventSpec
from orchestrator.events.registry import build_event

DEPTH = 16
"""Lists and maps inside each other."""

_KINDS: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "digits": (str,),
    "number": (int, float),
    "int": (int,),
    "bool": (bool,),
    "duration": (int, float),
    "time": (int, float),
    "list": (list, tuple),
    "map": (Mapping,),
    "contact": (Mapping,),
    "contacts": (list, tuple),
    "aor": (str,),
    "uri": (str,),
    "tel": (str,),
}
"""Type word → what a value of it is in Python; seconds for durations, seconds since the epoch for times."""


def typed_event(spec: EventSpec, attributes: Mapping[str, Any], call: str = "", time: float = 0.0) -> Event:
    """An event with every declared attribute present and of its type, the optional ones null unless given.

    Raises:
        ValueError: an attribute is unknown, missing, or not of its type; the message names event and attribute.
    """
    values = {}
    for name, value in attributes.items():
        attribute = spec.attributes.get(name)
        values[name] = value if attribute is None or value is None else _typed(spec, attribute, value)
    return build_event(spec, values, call, time)


def _typed(spec: EventSpec, attribute: Attribute, value: Any) -> Any:
    where = f"attribute {attribute.name!r} of event {spec.name!r}"
    wanted = _KINDS.get(attribute.type)
    if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
        raise WrongValue(f"{where}: {type(value).__name__} is not of type {attribute.type}")
    if attribute.values and value not in attribute.values:
        raise WrongValue(f"{where}: {str(value)[:80]!r} is none of {', '.join(attribute.values)}")
    if attribute.type == "duration" and value < 0:
        raise WrongValue(f"{where}: a duration is not negative")
    return _plain(where, value, DEPTH)


def _plain(where: str, value: Any, depth: int) -> Any:
    """A copy made of text, numbers, true/false, null, lists and maps. Raises WrongValue."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    if depth and isinstance(value, list | tuple):
        return [_plain(where, item, depth - 1) for item in value]
    if depth and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(where, item, depth - 1) for key, item in value.items()}
    what = "nested too deep" if not depth else f"{type(value).__name__} is not a value of the language"
    if isinstance(value, float):
        what = f"{value} is not a number of the language"
    raise WrongValue(f"{where}: {what}")
