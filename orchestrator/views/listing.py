"""A long list, of which a page is shown at a time.

The objects are taken once, which is cheap; what is shown of them is made for the page alone. Whoever looks through many
of them `breathe`s in between: the API lets the loop turn then. So an object may change, or end, while a page is made.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

STRETCH: Final = 100
"""Objects looked at between two breaths: some 3 ms where a call is searched."""
SHOWN: Final = 25
"""Objects shown between two breaths: some 2 ms."""


def nothing() -> None:
    """Whoever looks through a list that is short need not breathe."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects of a list, how many there are in all, and where the next page begins; None for nowhere."""

    items: list[dict[str, Any]]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """`show` makes what is seen of an object, `key` names it, `match` says which ones are meant; None: all."""

    objects: Sequence[T]
    show: Callable[[T], dict[str, Any]]
    key: Callable[[T], str]
    match: Callable[[T], bool] | None = None

    def page(self, limit: int, cursor: str = "", breathe: Callable[[], object] = nothing) -> Page:
        """At most `limit` of them, those behind the `cursor` of the page before; its last object may be gone since.

        Raises ValueError for a cursor that is none.
        """
        start = self._start(cursor, breathe)
        if self.match is None:
            end = min(start + limit, len(self.objects))
            items = self._shown(start, end, breathe)
            more = end < len(self.objects)
            return Page(items, len(self.objects), self._cursor(end - 1) if more and items else None)
        return self._matching(self.match, start, limit, breathe)

    def _shown(self, start: int, end: int, breathe: Callable[[], object]) -> list[dict[str, Any]]:
        items = []
        for found in self.objects[start:end]:
            items.append(self.show(found))
            if len(items) % SHOWN == 0:
                breathe()
        return items

    def _matching(self, match: Callable[[T], bool], start: int, limit: int, breathe: Callable[[], object]) -> Page:
        items: list[dict[str, Any]] = []
        total, last, more = 0, 0, False
        for position, found in enumerate(self.objects):
            if position % STRETCH == STRETCH - 1:
                breathe()
            if not match(found):
                continue
            total += 1
            if position < start:
                continue
            if len(items) < limit:
                items.append(self.show(found))
                last = position
                if len(items) % SHOWN == 0:
                    breathe()
            else:
                more = True
        return Page(items, total, self._cursor(last) if more and items else None)

    def _cursor(self, position: int) -> str:
        return urlsafe_b64encode(f"{position}:{self.key(self.objects[position])}".encode()).decode().rstrip("=")

    def _start(self, cursor: str, breathe: Callable[[], object]) -> int:
        """Where the objects behind a cursor begin: where its object is now, else where it was."""
        if not cursor:
            return 0
        try:
            position, _, key = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(":")
            at = int(position) if position.isascii() and position.isdigit() and len(position) < 10 else -1
        except ValueError:
            at = -1
        if at < 0:
            raise ValueError("the cursor is not one of this list")
        if at < len(self.objects) and self.key(self.objects[at]) == key:
            return at + 1
        for number, found in enumerate(self.objects):
            if number % STRETCH == STRETCH - 1:
                breathe()
            if self.key(found) == key:
                return number + 1
        return min(at, len(self.objects))
