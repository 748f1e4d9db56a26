"""Patterns of `*` and `?`: `like('sip:*@example.com')` and the values of a `where:` map.

Only what the author of the flow writes is a wildcard; text that comes from a caller is always taken as it is, so a
caller `sip:*@domain` fits nobody but `*` (the hole of OpenSIPS' EBR filters). Matching is greedy from the left, piece
by piece: without regular expressions and without backtracking over `*`, a long subject cannot make it slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from orchestrator.flow.expr.runtime import MAX_TEXT, missing_or_wrong

Piece = str | None | Literal[True]
"""Text that stands for itself, None for `?`, True for `*`."""

_Run = list["str | None"]
"""Pieces between two `*`."""


def pieces(pattern: str) -> list[Piece]:
    """A written pattern, taken apart."""
    found: list[Piece] = []
    plain = ""
    for char in pattern:
        if char not in "*?":
            plain += char
            continue
        if plain:
            found.append(plain)
            plain = ""
        found.append(True if char == "*" else None)
    return [*found, plain] if plain else found


class Pattern:
    """A pattern whose pieces are known; a call says whether a text fits as a whole."""

    __slots__ = ("_runs", "_widths")

    def __init__(self, pieces: Sequence[Piece]) -> None:
        runs: list[_Run] = [[]]
        for piece in pieces:
            if piece is True:
                runs.append([])
            else:
                runs[-1].append(piece)
        self._runs = runs
        self._widths = [sum(1 if piece is None else len(piece) for piece in run) for run in runs]

    def __call__(self, text: str) -> bool:
        runs, widths = self._runs, self._widths
        end = len(text) - widths[-1]
        if len(runs) == 1:
            return end == 0 and _fits(runs[0], text, 0)
        at = widths[0]
        if at > end or not _fits(runs[0], text, 0) or not _fits(runs[-1], text, end):
            return False
        for run, width in zip(runs[1:-1], widths[1:-1], strict=True):
            found = _find(run, text, at, end - width)
            if found < 0:
                return False
            at = found + width
        return True


def glob(text: str | None, *pieces: Piece) -> bool:
    """Whether the text fits a pattern part of which was worked out just now. Null fits none."""
    if text is None:
        return False
    if type(text) is not str or len(text) > MAX_TEXT:
        raise missing_or_wrong(text, f"text of at most {MAX_TEXT} characters")
    return Pattern(pieces)(text)


def _fits(run: _Run, text: str, at: int) -> bool:
    for piece in run:
        if piece is None:
            at += 1
        elif text.startswith(piece, at):
            at += len(piece)
        else:
            return False
    return True


def _find(run: _Run, text: str, at: int, last: int) -> int:
    """The first offset from `at` to `last` where a run fits, or -1."""
    ahead = next((i for i, piece in enumerate(run) if piece is not None), len(run))
    if ahead == len(run):
        return at if at <= last else -1
    anchor = run[ahead]
    assert anchor is not None
    while at <= last:
        found = text.find(anchor, at + ahead) - ahead
        if found < at or found > last:
            return -1
        if _fits(run, text, found):
            return found
        at = found + 1
    return -1
