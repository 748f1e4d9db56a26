"""Host names to addresses: who may have how many looked up, and what is known already.

A name costs seconds where its name server is dead, and whoever calls us chooses the name. So callers share a bounded
number of look-ups, each source has a part of it, and one name is looked up once however many wait for it. Names of the
configuration, of gateways and FreeSWITCH servers, have no bound and look-ups of their own (`runtime.jobs`), and when
they are not found any more the last good address stays: a name server that is away must not end telephony.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from orchestrator.timers import Timers

Told = Callable[[str | None], None]
LookUp = Callable[[str, Told], None]

FOUND_LASTS: Final = 60.0
"""Seconds an address is kept; the system's resolver tells us no TTL."""
MISSED_LASTS: Final = 10.0
"""Seconds a failure is kept (RFC 2308 §7.1 allows up to five minutes for a server that does not answer)."""
MOST_KEPT: Final = 10_000
MOST_UNDER_WAY: Final = 100
"""Look-ups of callers' names at a time; one beyond it fails at once."""
MOST_OF_SOURCE: Final = 10


class LookUps:
    """Answers kept, and look-ups under way. `look_up(host, told)` starts one; `read(address)` spells an address as we
    do, None for one where no datagram may go."""

    def __init__(self, timers: Timers, look_up: LookUp, read: Callable[[str], str | None]) -> None:
        self.configured: frozenset[str] = frozenset()
        """Host names, in lower case, that the configuration knows."""
        self.refused = 0
        """Names not looked up because too many were under way."""
        self._timers = timers
        self._look_up = look_up
        self._read = read
        self._kept: OrderedDict[str, tuple[str | None, float]] = OrderedDict()
        """Name → its address or None, and until when; what was used least lately first."""
        self._last_good: dict[str, str] = {}
        self._under_way: dict[str, list[Told]] = {}
        self._of_source: Counter[str] = Counter()
        self._of_callers = 0

    def configure(self, hosts: frozenset[str]) -> None:
        """Take the names of a configuration."""
        self.configured = hosts
        self._last_good = {host: address for host, address in self._last_good.items() if host in hosts}

    def find(self, host: str, source: str, told: Told) -> None:
        """`told(address or None)`: at once where it is known or too much is under way, else later. `source` is on whose
        behalf; '' for nobody's."""
        kept = self._kept.get(host)
        if kept is not None and kept[1] > self._timers.now:
            self._kept.move_to_end(host)
            told(kept[0])
            return
        waiting = self._under_way.get(host)
        if waiting is not None:
            waiting.append(told)
        elif host in self.configured:
            self._start(host, told, lambda: None)
        elif self._of_callers >= MOST_UNDER_WAY or (source and self._of_source[source] >= MOST_OF_SOURCE):
            self.refused += 1
            told(None)
        else:
            self._of_callers += 1
            self._of_source[source] += 1
            self._start(host, told, lambda: self._give_back(source))

    def known(self, host: str) -> str | None:
        """The address of a name as far as it is known without looking."""
        kept = self._kept.get(host)
        return (kept[0] if kept is not None else None) or self._last_good.get(host)

    def _start(self, host: str, told: Told, ended: Callable[[], None]) -> None:
        self._under_way[host] = [told]

        def answer(text: str | None) -> None:
            waiting = self._under_way.pop(host, None)
            if waiting is None:  # told twice
                return
            ended()
            _tell(waiting, self._keep(host, self._read(text) if text is not None else None))

        self._look_up(host, answer)

    def _give_back(self, source: str) -> None:
        self._of_callers -= 1
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]

    def _keep(self, host: str, address: str | None) -> str | None:
        lasts = FOUND_LASTS if address is not None else MISSED_LASTS
        if host in self.configured:
            if address is None:
                address = self._last_good.get(host)
            else:
                self._last_good[host] = address
        self._kept[host] = (address, self._timers.now + lasts)
        self._kept.move_to_end(host)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return address

    def __len__(self) -> int:
        """Look-ups under way."""
        return len(self._under_way)


def _tell(waiting: list[Told], address: str | None) -> None:
    """Tell all of them, whatever comes of the first."""
    fault: Exception | None = None
    for told in waiting:
        try:
            told(address)
        except Exception as bug:
            fault = fault or bug
    if fault is not None:
        raise fault
