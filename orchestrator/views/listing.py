"""A long list, of which a page is shown at a time.

The objects are taken once, which is cheap; what is shown of them is made for the page alone. Whoever looks through many
of them `breathe`s in between: the API lets the loop turn then. So an object may change, or end, while a page is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

STRETCH: Final = 100
"""Objects looked at between two breaths: some 3 ms where a call is searched."""
SHOWN: Final = 25
"""Objects shown between two breaths: some 2 ms."""
_CURSOR: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,9})((?:\.[0-9a-f]{10}){1,12})")
"""The positions of the first and last object of a page, then marks of objects of that page, the last one first."""


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
        """At most `limit` of them, those behind the `cursor` of the page before; objects of that may be gone since.

        Raises ValueError for a cursor that is none.
        """
        start = self._start(cursor, breathe)
        if self.match is None:
            places: Sequence[int] = range(start, min(start + limit, len(self.objects)))
            total, more = len(self.objects), start + limit < len(self.objects)
            items = self._shown(places, breathe)
        else:
            items, places, total, more = self._matching(self.match, start, limit, breathe)
        return Page(items, total, self._cursor(places) if more and places else None)

    def _shown(self, places: Sequence[int], breathe: Callable[[], object]) -> list[dict[str, Any]]:
        items = []
        for place in places:
            items.append(self.show(self.objects[place]))
            if len(items) % SHOWN == 0:
                breathe()
        return items

    def _matching(
        self, match: Callable[[T], bool], start: int, limit: int, breathe: Callable[[], object]
    ) -> tuple[list[dict[str, Any]], list[int], int, bool]:
        """What the page shows, where that stands, how many match in all, and whether more follow."""
        items: list[dict[str, Any]] = []
        places: list[int] = []
        total, more = 0, False
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
                places.append(position)
                if len(items) % SHOWN == 0:
                    breathe()
            else:
                more = True
        return items, places, total, more

    def _mark(self, found: T) -> str:
        return blake2s(self.key(found).encode("utf-8", "replace"), digest_size=5).hexdigest()

    def _cursor(self, places: Sequence[int]) -> str:
        """Names the last object of a page, and some before it, ever farther apart, for when that one is gone."""
        backs = [*(1 << power for power in range(len(places).bit_length())), len(places)]
        marks = [self._mark(self.objects[places[-back]]) for back in backs]
        return ".".join((f"{places[0]}-{places[-1]}", *marks))

    def _start(self, cursor: str, breathe: Callable[[], object]) -> int:
        """Behind the last object of a cursor that is still there, so that none is left out; an object between that and
        the end of the page comes twice. Where none is there, what stood behind the page stands where it began."""
        if not cursor:
            return 0
        told = _CURSOR.fullmatch(cursor)
        if told is None:
            raise ValueError("the cursor is not one of this list")
        first, at, marks = int(told[1]), int(told[2]), told[3][1:].split(".")
        if at < len(self.objects) and self._mark(self.objects[at]) == marks[0]:
            return at + 1
        best, start = len(marks), min(first, len(self.objects))
        for number, found in enumerate(self.objects):
            if number % STRETCH == STRETCH - 1:
                breathe()
            mark = self._mark(found)
            if mark in marks[:best]:
                best, start = marks.index(mark), number + 1
                if best == 0:
                    break
        return start
