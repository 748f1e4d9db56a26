"""What generated expressions call: the operations that need a check while a call is running.

Whatever a stranger sends, an expression ends soon and with a value or a `StepError`: text is bounded before it is
built, numbers are kept within 64 bits, list macros share a budget of steps. Types were checked at load; values
declared as anything are checked here, when they are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.errors import StepError

MAX_TEXT = 65_536
"""Characters of a text an expression makes (FLOWLANG §5: 64 KB)."""

MAX_NUMBER = 2**63 - 1
"""Numbers are 64-bit as in CEL: a loop that squares a variable stops here and not when memory is full."""

MAX_STEPS = 10_000
"""List items one evaluation may visit, nested macros included: about 3 ms."""

MAX_LIST_TEXT = 16 * MAX_TEXT
"""Characters one evaluation may put into lists with map()."""

# Made once: `int | float` in a condition is made anew each time, which costs more than the question.
_NUMBER = (int, float)
_LIST = (list, tuple)
_STRUCTURE = (list, tuple, Mapping)
_NO_MAP = (str, int, float, list, tuple)

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def missing_or_wrong(value: object, wanted: str) -> StepError:
    """The error for a value that is not what an expression needs: `expr.missing` for null, else `expr.value`."""
    if value is None:
        return StepError("expr.missing", f"a value is missing where {wanted} is needed")
    return StepError("expr.value", f"expected {wanted}, got {type(value).__name__}")


# --- text -------------------------------------------------------------------------------------------------------------


def limit(text: str) -> str:
    """The text, or `flow.limit` when it is longer than 64 KB."""
    if len(text) > MAX_TEXT:
        raise StepError("flow.limit", f"a text became longer than {MAX_TEXT} characters")
    return text


def concat(left: str, right: str) -> str:
    return limit(left + right)


def replace(text: str, old: str, new: str) -> str:
    """`text.replace`, measured before it is built: 64 KB times 64 KB would be 4 GB."""
    size = len(text) + text.count(old) * (len(new) - len(old))
    if size > MAX_TEXT:
        raise StepError("flow.limit", f"a text became longer than {MAX_TEXT} characters")
    return text.replace(old, new)


def split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def prefix(text: str, count: float) -> str:
    return text[: whole(count)]


def drop(text: str, count: float) -> str:
    return text[whole(count) :]


def join(items: Iterable[Any], separator: str = "") -> str:
    """Texts or numbers of a list as one text, measured before it is built."""
    texts = [any_text(item) for item in items]
    if sum(map(len, texts)) + len(separator) * len(texts) > MAX_TEXT:
        raise StepError("flow.limit", f"a text became longer than {MAX_TEXT} characters")
    return separator.join(texts)


def join_text(*parts: str) -> str:
    """The pieces of a text with `${…}`."""
    return limit("".join(parts))


# --- numbers ----------------------------------------------------------------------------------------------------------


def bounded(value: float) -> float:
    """The number, or `expr.value` beyond 64 bits (also for infinity and not-a-number)."""
    if -MAX_NUMBER - 1 <= value <= MAX_NUMBER:
        return value
    raise StepError("expr.value", "a number became larger than 64 bits can hold")


def add(left: float, right: float) -> float:
    return bounded(left + right)


def subtract(left: float, right: float) -> float:
    return bounded(left - right)


def multiply(left: float, right: float) -> float:
    return bounded(left * right)


def ratio(left: float, right: float) -> float:
    """Division of durations: 3s / 2 is 1.5s."""
    if right == 0:
        raise StepError("expr.value", "division by zero")
    return bounded(left / right)


def divide(left: float, right: float) -> float:
    """CEL's `/`: whole numbers give a whole number, cut towards zero."""
    if not (isinstance(left, int) and isinstance(right, int)):
        return ratio(left, right)
    if right == 0:
        raise StepError("expr.value", "division by zero")
    quotient = abs(left) // abs(right)
    return bounded(quotient if (left < 0) == (right < 0) else -quotient)


def remainder(left: float, right: float) -> float:
    """CEL's `%`: the sign is that of the left side."""
    if right == 0:
        raise StepError("expr.value", "division by zero")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def whole(value: float) -> int:
    """A count or an index: a whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, _NUMBER) or value < 0 or value != int(value):
        raise missing_or_wrong(value, "a whole number from 0")
    return int(value)


def to_int(value: Any) -> int:
    """`int(x)` of text, digits, numbers, durations (seconds) and times (seconds since 1970)."""
    if isinstance(value, str):
        if _INTEGER.fullmatch(value) is None:
            raise StepError("expr.value", f"'{value[:40]}' is not a whole number")
        value = int(value)
    return int(bounded(as_number(value)))


# --- values to text ---------------------------------------------------------------------------------------------------


def number_text(value: float) -> str:
    """A number as text: `2`, not `2.0`."""
    bounded(as_number(value))
    return str(int(value)) if value == int(value) else repr(value)


def seconds_text(value: float) -> str:
    """A duration as its number of seconds, to the millisecond: what SIP headers and dial strings want."""
    return number_text(round(as_number(value), 3))


def time_text(value: float) -> str:
    """A time in RFC 3339 form, UTC, to the second: 2026-11-23T14:05:00Z."""
    return (_EPOCH + timedelta(seconds=int(as_number(value)))).strftime("%Y-%m-%dT%H:%M:%SZ")


def bool_text(value: bool) -> str:
    return "true" if value else "false"


def any_text(value: Any) -> str:
    """A value whose type is known only now; lists and maps are written as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return bool_text(value)
    if isinstance(value, _NUMBER):
        return number_text(value)
    if isinstance(value, _STRUCTURE):
        return limit(json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":")))
    raise missing_or_wrong(value, "text")


# --- values declared as anything --------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise missing_or_wrong(value, "text")


def as_number(value: Any) -> float:
    if isinstance(value, _NUMBER) and not isinstance(value, bool):
        return value
    raise missing_or_wrong(value, "a number")


def as_bool(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise missing_or_wrong(value, "true/false")


def as_list(value: Any) -> Sequence[Any]:
    if isinstance(value, _LIST):
        return value
    raise missing_or_wrong(value, "a list")


def as_map(value: Any) -> Any:
    """A map or a view object: anything read by text keys that is no text, number or list."""
    if value is None or isinstance(value, _NO_MAP):
        raise missing_or_wrong(value, "a map")
    return value


def get(target: Any, key: Any) -> Any:
    """The value of a map or of an attribute that may be missing; null when it is."""
    try:
        return target[key]
    except LookupError:
        return None


def item(target: Sequence[Any], index: float) -> Any:
    """The item of a list, counted from 0; null outside of it."""
    if index < 0:
        return None
    at = whole(index)
    return target[at] if at < len(target) else None


def member(target: Any, key: Any) -> Any:
    """`target.key` or `target[key]` where only the call knows what the target is; null when there is no such key."""
    if isinstance(target, _LIST):
        return item(target, as_number(key))
    return get(as_map(target), as_text(key))


def same(left: Any, right: Any, source: str | None = None) -> bool:
    """`==` where a side is declared as anything. `source` is a number literal as written, for comparing with digits."""
    if isinstance(left, str) and source is not None:
        return left == source
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def within(left: Any, right: Any, sources: Sequence[str | None] = ()) -> bool:
    """`in` where a side is declared as anything."""
    if isinstance(right, _LIST):
        written = sources or (None,) * len(right)
        return any(same(left, value, source) for value, source in zip(right, written, strict=True))
    return get(as_map(right), as_text(left)) is not None


def less(left: Any, right: Any, or_equal: bool = False) -> bool:
    """`<` and `<=` where a side is declared as anything: two numbers or two texts."""
    if not (isinstance(left, str) and isinstance(right, str)):
        left, right = as_number(left), as_number(right)
    return bool(left <= right if or_equal else left < right)


def plus(left: Any, right: Any) -> Any:
    """`+` where both sides are declared as anything: two numbers or two texts."""
    if isinstance(left, str) and isinstance(right, str):
        return concat(left, right)
    return add(as_number(left), as_number(right))


# --- lists ------------------------------------------------------------------------------------------------------------


class Budget:
    """What one evaluation may still spend on list macros; nested macros share it."""

    __slots__ = ("_steps", "_text")

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._text = MAX_LIST_TEXT

    def take(self, items: Sequence[Any]) -> Sequence[Any]:
        """The items, paid for in advance."""
        self._steps -= len(items)
        if self._steps < 0:
            raise StepError("flow.limit", f"an expression visited more than {MAX_STEPS} list items")
        return items

    def keep(self, value: Any) -> Any:
        """A value that goes into a new list, text paid for."""
        if isinstance(value, str):
            self._text -= len(value)
            if self._text < 0:
                raise StepError("flow.limit", f"an expression put more than {MAX_LIST_TEXT} characters into lists")
        return value


def exists(items: Sequence[Any], test: Callable[[Any], bool], spend: Budget) -> bool:
    return any(test(value) for value in spend.take(items))


def every(items: Sequence[Any], test: Callable[[Any], bool], spend: Budget) -> bool:
    return all(test(value) for value in spend.take(items))


def keep_if(items: Sequence[Any], test: Callable[[Any], bool], spend: Budget) -> list[Any]:
    return [value for value in spend.take(items) if test(value)]


def each(items: Sequence[Any], make: Callable[[Any], Any], spend: Budget) -> list[Any]:
    return [spend.keep(make(value)) for value in spend.take(items)]


def extend(left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
    """`list + list`."""
    if len(left) + len(right) > MAX_STEPS:
        raise StepError("flow.limit", f"a list became longer than {MAX_STEPS} items")
    return [*left, *right]
