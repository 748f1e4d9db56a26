"""How many addresses of record each user has registered: one password must not fill the table.

Only those who have answered a challenge are users here. What is kept is in memory, for `_MOST` users; a phone renews it
with each REGISTER.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_MOST: Final = 50_000


class UserAddresses:
    """Those of one engine. `is_live(aor)` says whether anybody is registered for an address."""

    def __init__(self, most: int, is_live: Callable[[str], bool]) -> None:
        self._most = most
        self._is_live = is_live
        self._of: OrderedDict[str, set[str]] = OrderedDict()

    def take(self, user: str, aor: str) -> bool:
        """Whether this user may register this address, which counts as his from now on."""
        aors = self._of.get(user)
        if aors is None:
            aors = self._of[user] = set()
            if len(self._of) > _MOST:
                self._of.popitem(last=False)
        else:
            self._of.move_to_end(user)
        if aor in aors:
            return True
        if len(aors) >= self._most:
            aors.intersection_update([known for known in aors if self._is_live(known)])
            if len(aors) >= self._most:
                return False
        aors.add(aor)
        return True

    def __len__(self) -> int:
        return len(self._of)
