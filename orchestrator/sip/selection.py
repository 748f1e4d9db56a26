"""Which failure a forked request is answered with (RFC 3261 §16.7 steps 6 and 7)."""

from __future__ import annotations

_CALLER_CAN_MEND = {401: 0, 407: 0, 415: 1, 420: 2, 484: 3}
"""Step 6 asks to prefer the 4xx that help the caller to try again."""

_CHALLENGES = (b"www-authenticate", b"proxy-authenticate")


def rank(status: int) -> int:
    """Sort key, the smallest is the best: 6xx, then the lowest class; of 4xx first what the caller can mend, 408 last;
    503 last of 5xx."""
    group, rest = divmod(status, 100)
    if group == 6:
        return rest
    if group == 4:
        return 40_000 + 1_000 * _CALLER_CAN_MEND.get(status, 9) + (999 if status == 408 else rest)
    return group * 10_000 + (999 if status == 503 else rest)


def is_challenge(name: bytes) -> bool:
    """Whether header lines of this (lower-case) name are collected from all 401 and 407 into the one sent (step 7)."""
    return name in _CHALLENGES
