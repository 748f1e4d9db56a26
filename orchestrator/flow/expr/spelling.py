"""Did you mean …: the nearest known word by edit distance with transpositions.

Transpositions count as one edit (optimal string alignment), because swapped letters are the commonest slip of the hand:
`relya` is one step from `relay` and two from `reply`, where difflib offered `reply`.
"""

from __future__ import annotations

from collections.abc import Iterable


def edit_distance(left: str, right: str) -> int:
    """Number of insertions, deletions, substitutions and swaps of neighbours between two words."""
    before: list[int] = []
    last = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and b == left[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word a typist most likely meant, or None when none is near; case differences cost nothing.

    About one slip per three letters is allowed; names of one letter get no suggestion, every other letter would fit.
    """
    limit = min((len(word) + 1) // 3, 3)
    best: tuple[int, str] | None = None
    for candidate in known:
        if abs(len(candidate) - len(word)) > limit:
            continue
        distance = edit_distance(word.lower(), candidate.lower())
        if distance <= limit and distance < len(candidate) and (best is None or distance < best[0]):
            best = (distance, candidate)
    return best[1] if best else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The help line for a word that is not known, empty when nothing is near."""
    found = closest(word, known)
    return f"did you mean '{found}'?" if found else ""
