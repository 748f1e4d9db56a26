"""Whose turn it is among the destinations of a relay: those of one group ring together, one group after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.sip.target import Target

Groups = tuple[Sequence[Target], ...]


def q_of(target: Target) -> float:
    """How much its phone wants to be called (RFC 3261 §20.10); a destination without a registration wants it most."""
    return target.binding.q if target.binding is not None else 1.0


def grouped_by_q(targets: Iterable[Target]) -> list[list[Target]]:
    """Those with the same q together, the highest first."""
    groups: dict[float, list[Target]] = {}
    for target in targets:
        groups.setdefault(q_of(target), []).append(target)
    return [groups[q] for q in sorted(groups, reverse=True)]


def line_up(late: Target, groups: Groups, mode: str) -> Groups:
    """Give a late destination its turn among those who have not rung yet; returns the groups as they are then."""
    if mode == "parallel":
        return ([*(groups[0] if groups else ()), late], *groups[1:])
    q = q_of(late)
    at = next((number for number, group in enumerate(groups) if q_of(group[0]) <= q), len(groups))
    if mode == "by_q" and at < len(groups) and q_of(groups[at][0]) == q:
        return (*groups[:at], [*groups[at], late], *groups[at + 1 :])
    while mode == "serial" and at < len(groups) and q_of(groups[at][0]) == q:  # behind those who have waited longer
        at += 1
    return (*groups[:at], [late], *groups[at:])


def may_ring_beside(late: Target, ringing: Iterable[Target], mode: str) -> bool:
    """Whether a late destination rings together with those who ring now."""
    return mode == "parallel" or (mode == "by_q" and all(q_of(target) <= q_of(late) for target in ringing))
