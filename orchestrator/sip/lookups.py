"""Host names to servers: who may have how many looked up, and what is known already.

A name costs seconds where its name server is dead, and whoever calls us chooses the name. So callers share a bounded
number of look-ups, each source has a part of it, and one name is looked up once however many wait for it. Names of the
configuration, of gateways and FreeSWITCH servers, have no bound and look-ups of their own (`runtime.jobs`), and when
they are not found any more what was found last stays: a name server that is away must not end telephony.

What is found holds as long as its records say (`sip.locate`), failures too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from orchestrator.sip.locate import MISSED_LASTS, NOTHING, Found, Goal
from orchestrator.timers import Timers

Told = Callable[[Found], None]
LookUp = Callable[[Goal, Callable[[Found | None], None]], None]
"""Starts a look-up; None: it has failed."""

MOST_KEPT = 10_000
MOST_UNDER_WAY: Final = 100
"""Look-ups of callers' names at a time; one beyond it fails at once."""
MOST_OF_SOURCE: Final = 10


class LookUps:
    """Answers kept, and look-ups under way. `look_up(goal, told)` starts one; `read(address)` spells an address as we
    do, None for one where no datagram may go."""

    def __init__(self, timers: Timers, look_up: LookUp, read: Callable[[str], str | None]) -> None:
        self.configured: frozenset[str] = frozenset()
        """Host names, in lower case, that the configuration knows."""
        self.peers: frozenset[str] = frozenset()
        """The addresses that they lead to, as far as that is known without looking."""
        self.refused = 0
        """Names not looked up because too many were under way."""
        self._timers = timers
        self._look_up = look_up
        self._read = read
        self._kept: OrderedDict[Goal, tuple[Found, float]] = OrderedDict()
        """What was found, and until when it holds; what was used least lately first."""
        self._addresses: dict[str, frozenset[str]] = {}
        """Name of the configuration → where it led last, for all goals together: with a port that a caller has chosen
        it may lead elsewhere, and the servers of the gateway stay known."""
        self._strangers: dict[str, frozenset[str]] = {}
        """Any other name that is kept → the same."""
        self._last_good: dict[Goal, Found] = {}
        self._under_way: dict[Goal, list[Told]] = {}
        self._of_source: Counter[str] = Counter()
        self._of_callers = 0

    def configure(self, hosts: frozenset[str]) -> None:
        """Take the names of a configuration."""
        self.configured = hosts
        self._last_good = {goal: found for goal, found in self._last_good.items() if goal.name in hosts}
        self._addresses = {name: there for name in hosts if (there := self.known(name))}
        self.peers = frozenset().union(*self._addresses.values())

    def find(self, goal: Goal, source: str, told: Told) -> None:
        """`told(what is found)`: at once where it is known or too much is under way, else later. `source` is on whose
        behalf; '' for nobody's."""
        kept = self._kept.get(goal)
        if kept is not None and kept[1] > self._timers.now:
            self._kept.move_to_end(goal)
            told(kept[0])
            return
        waiting = self._under_way.get(goal)
        if waiting is not None:
            waiting.append(told)
        elif goal.name in self.configured:
            self._start(goal, told, lambda: None)
        elif self._of_callers >= MOST_UNDER_WAY or (source and self._of_source[source] >= MOST_OF_SOURCE):
            self.refused += 1
            told(NOTHING)
        else:
            self._of_callers += 1
            self._of_source[source] += 1
            self._start(goal, told, lambda: self._give_back(source))

    def known(self, name: str) -> frozenset[str]:
        """The addresses of a name as far as they are known without looking."""
        return self._addresses.get(name) or self._strangers.get(name, frozenset())

    def has_services(self, goal: Goal) -> bool:
        """Whether the domain is known to have SRV records."""
        kept = self._kept.get(goal)
        return kept is not None and bool(kept[0].services)

    def _start(self, goal: Goal, told: Told, ended: Callable[[], None]) -> None:
        self._under_way[goal] = [told]

        def answer(found: Found | None) -> None:
            waiting = self._under_way.pop(goal, None)
            if waiting is None:  # told twice
                return
            ended()
            _tell(waiting, self._keep(goal, NOTHING if found is None else self._cleaned(found)))

        self._look_up(goal, answer)

    def _give_back(self, source: str) -> None:
        self._of_callers -= 1
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]

    def _cleaned(self, found: Found) -> Found:
        """Without addresses that no datagram may be sent to."""
        addresses = {
            name: tuple(address for text in there if (address := self._read(text)) is not None)
            for name, there in found.addresses.items()
        }
        return found if addresses == found.addresses else found._replace(addresses=addresses)

    def _keep(self, goal: Goal, found: Found) -> Found:
        lasts = found.ttl
        if goal.name in self.configured:
            if found.leads_somewhere:
                self._last_good[goal] = found
                same = (known for other, known in self._last_good.items() if other.name == goal.name)
                self._addresses[goal.name] = frozenset().union(*map(_addresses, same))
                self.peers = frozenset().union(*self._addresses.values())
            else:
                found = self._last_good.get(goal, found)
                lasts = min(lasts, MISSED_LASTS)
        else:
            self._strangers[goal.name] = _addresses(found)
        self._kept[goal] = (found, self._timers.now + lasts)
        self._kept.move_to_end(goal)
        if len(self._kept) > MOST_KEPT:
            oldest, _ = self._kept.popitem(last=False)
            self._strangers.pop(oldest.name, None)
        return found

    def __len__(self) -> int:
        """Look-ups under way."""
        return len(self._under_way)


def _addresses(found: Found) -> frozenset[str]:
    return frozenset(address for there in found.addresses.values() for address in there)


def _tell(waiting: list[Told], found: Found) -> None:
    """Tell all of them, whatever comes of the first."""
    fault: Exception | None = None
    for told in waiting:
        try:
            told(found)
        except Exception as bug:
            fault = fault or bug
    if fault is not None:
        raise fault
