"""JSON-RPC as CGRateS speaks it over TCP: objects back to back, with or without blanks between them, no framing.

{"method": "SessionSv1.AuthorizeEvent", "id": 1, "params": [{…}]}   →   {"id": 1, "result": {…}, "error": null}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

LONGEST = 1 << 20
"""Octets of one object. CGRateS sends some hundred; routes and attributes make it some thousand."""

_MARKS = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The rest of a string, without its closing quote and without half an escape."""
_BLANK = b" \t\r\n"
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Garbage(ValueError):
    """The stream holds something that is no object; nothing behind it can be found."""


class Objects:
    """Cuts a stream into objects. What was looked at is not looked at again, however small the pieces are."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0
        """Up to where it was looked at."""
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The objects that are complete with this, to be taken all. Raises Garbage behind those before it."""
        held = self._held
        held += data
        if not self._at:
            yield from self._lines()
        while (end := self._end()) is not None:
            found = _object(bytes(self._held[:end]))
            del self._held[:end]
            self._at = self._depth = 0
            yield found
        if len(self._held) > LONGEST:
            raise Garbage(f"an object of more than {LONGEST} octets")

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The objects at the front that are a line each, as Go writes them: the parser finds the end of these."""
        held, begin = self._held, 0
        try:
            while (end := held.find(b"\n", begin)) >= 0:
                found = json.loads(held[begin:end].decode())
                if not isinstance(found, dict):
                    break
                begin = end + 1
                yield found
        except (ValueError, RecursionError):  # more than a line, or less, or nothing that can be read
            pass
        del held[:begin]

    def _end(self) -> int | None:
        """Behind the first object; None when it is not complete."""
        held = self._held
        if not self._depth:
            begin = 0
            while begin < len(held) and held[begin] in _BLANK:
                begin += 1
            del held[:begin]
            if held and held[0] != ord("{"):
                raise Garbage(f"no object begins with {bytes(held[:20])!r}")
        while self._leave_string() and (mark := _MARKS.search(held, self._at)) is not None:
            octet = mark[0]
            self._at = mark.end()
            if octet == b'"':
                self._in_string = True
                continue
            self._depth += 1 if octet in b"{[" else -1
            if not self._depth:
                return self._at
        if not self._in_string:
            self._at = len(held)
        return None

    def _leave_string(self) -> bool:
        """Step over the string that is open, if one is. False: its end is not there yet."""
        if self._in_string:
            inside = _INSIDE.match(self._held, self._at)
            assert inside is not None  # it matches nothing, too
            self._at = inside.end()
            if self._held[self._at : self._at + 1] != b'"':
                return False
            self._at += 1
            self._in_string = False
        return True


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Garbage(str(error)) from None
    if not isinstance(found, dict):
        raise Garbage("no object")
    return found


def request(id: int, method: str, params: Any) -> bytes:
    """The octets of a request."""
    return _octets({"method": method, "id": id, "params": [params]})


def answer(id: Any, result: Any, error: str | None) -> bytes:
    """Those of an answer to a request of CGRateS."""
    return _octets({"id": id, "result": result, "error": error})


def _octets(value: dict[str, Any]) -> bytes:
    return _encode(value).encode() + b"\n"
