"""What the user tables that are not files have said, and who waits for what they will say.

A look-up is a job, so no turn waits for a database. Requests for the same user share one. What was found is kept for a
time; so is that somebody is not there, apart, so that made-up names take no place of real users. A password that does
not fit what is kept may be a new one: the table is then asked again, once in `AGAIN` seconds for each user. When a
table cannot be asked, what it said before may be used for a time (`stale`): phones stay registered while a database is
away. A reload makes all of it stale.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.core.node import Node
from orchestrator.core.settings import UserCachePolicy
from orchestrator.core.users import RemoteUsers
from orchestrator.errors import StepError
from orchestrator.sip.digest import Secret
from orchestrator.timers import Timer

AGAIN: Final = 5.0
"""Seconds after which a password that does not fit has its user looked up anew."""

Key = tuple[str, str, str]
"""Table, realm, user."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a table said of a user, and when; None for nobody."""

    secret: Secret | None
    at: float
    reloads: int = 0
    """Before it was asked for; what was known before the last one is stale."""


Found = Callable[[Known | StepError], None]


class UserCache:
    """Those of one engine, bounded: `policy.users` found and as many that are not there."""

    def __init__(self, node: Node, policy: UserCachePolicy) -> None:
        self._node = node
        self._policy = policy
        self._site = node.site
        self._reloads = 0
        self._found: OrderedDict[Key, Known] = OrderedDict()
        self._absent: OrderedDict[Key, Known] = OrderedDict()
        self._asking: dict[Key, _LookUp] = {}

    def ask(self, name: str, table: RemoteUsers, user: str, realm: str, found: Found, newer: float = -1.0) -> None:
        """Tell `found` what is known of a user, at once or in a later turn; a StepError `auth.down` where nobody can
        say. What was said before `newer` does not serve."""
        self._notice_reload()
        now, key = self._node.timers.now, (name, realm, user)
        known = self._found.get(key) or self._absent.get(key)
        if known is not None and known.at >= newer and self._is_fresh(known, now):
            self._node.count("auth.cached")
            found(known)
            return
        asking = self._asking.get(key)
        if asking is not None and asking.table == table:
            asking.waiting.append(found)
            return
        asking = self._asking[key] = _LookUp(table, found, self._reloads)
        asking.effect = table.question(user, realm)
        self._node.job(asking.effect, lambda result: self._done(key, asking, result))
        asking.timer = self._node.timers.after(table.limit, lambda _: self._done(key, asking, _LATE))

    def _is_fresh(self, known: Known, now: float) -> bool:
        policy = self._policy
        lasts = policy.absent if known.secret is None else policy.keep
        return known.reloads == self._reloads and now < known.at + lasts

    def _done(self, key: Key, asking: _LookUp, result: Any) -> None:
        """The table has answered, or it is too late for that."""
        if asking.timer is None:
            return
        asking.timer.cancel()
        asking.timer = None
        if result is _LATE and hasattr(asking.effect, "given_up"):
            asking.effect.given_up = True
        current = self._asking.get(key) is asking
        if current:
            del self._asking[key]
        told = self._told(key, asking, result, current)
        with ExitStack() as each:  # a bug in one of them costs itself
            for found in reversed(asking.waiting):
                each.callback(found, told)

    def _told(self, key: Key, asking: _LookUp, result: Any, current: bool) -> Known | StepError:
        now = self._node.timers.now
        try:
            if isinstance(result, StepError):
                raise result
            known = Known(asking.table.answer(result), now, asking.reloads)
        except StepError as error:
            kept = self._found.get(key)
            if kept is not None and now < kept.at + self._policy.keep + self._policy.stale:
                self._node.count("auth.stale")
                return kept
            self._node.count("auth.down")
            return StepError("auth.down", f"user table {key[0]!r}: {error.message}")
        if current:  # a table that a reload has replaced is not what the next one is asked of
            self._keep(key, known)
        return known

    def _keep(self, key: Key, known: Known) -> None:
        self._found.pop(key, None)
        self._absent.pop(key, None)
        kept = self._absent if known.secret is None else self._found
        kept[key] = known
        while len(kept) > self._policy.users:
            kept.popitem(last=False)

    def _notice_reload(self) -> None:
        site, before = self._node.site, self._site
        if site is before:
            return
        self._site = site
        self._reloads += 1
        changed = {name for name, table in before.users.items() if site.users.get(name) != table}
        if changed:
            for kept in (self._found, self._absent):
                for key in [key for key in kept if key[0] in changed]:
                    del kept[key]

    def __len__(self) -> int:
        return len(self._found) + len(self._absent)


class _LookUp:
    """One that is under way, and who waits for it."""

    __slots__ = ("table", "reloads", "waiting", "timer", "effect")

    def __init__(self, table: RemoteUsers, found: Found, reloads: int) -> None:
        self.table = table
        self.reloads = reloads
        self.waiting = [found]
        self.timer: Timer | None = None
        self.effect: Any = None


_LATE: Final = StepError("auth.down", "no answer in time")
