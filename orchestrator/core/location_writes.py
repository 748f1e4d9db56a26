"""Writes to the location store: in order, answered when they are stored, bounded in number and time.

A store that writes in the turn is done at once. One that answers later hands over `StoreWork`, which becomes a job;
until it has ended the address of record is *held*. What is asked of a held address waits its turn, so that each
REGISTER is decided on what the one before it left (RFC 3261 §10.3: in the order received, each as a whole), and writes
of one address are never under way together. The table changes when the store has: calls ring what stood before until
then.

A write that the store refuses changes nothing. One whose time is over is refused as well, and so is one that waited for
too long: the phone gets its 503 and tries again. Whether the store has carried it out is then not known. It need not
be: the next write of that address says anew what stands of its contacts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Final

from orchestrator.core.jobs import Write
from orchestrator.core.node import Node
from orchestrator.errors import SipError, StoreError
from orchestrator.sip.location import Binding, Change, Location
from orchestrator.timers import Timer

GRACE = 1.0
"""Seconds that a write may take beyond the time that the runtime gives it: it says itself that its time is over."""
MOST_DOUBTS: Final = 10_000
"""Addresses whose contacts are to be said anew; the oldest go first when there are more."""

MOST_OF_ONE: Final = 100
"""Contacts of one of them."""

Decide = Callable[[Sequence[Binding]], Sequence[Change]]
"""From the bindings that stand to what is to change. Raises SipError."""
Done = Callable[[Sequence[Change], Sequence[Binding], SipError | None], None]
"""Told what has changed and what stands now, or why nothing has."""


class Ask:
    """One change of the bindings of an address; told `done` once."""

    __slots__ = ("aor", "decide", "done", "timer")

    def __init__(self, aor: str, decide: Decide, done: Done) -> None:
        self.aor = aor
        self.decide = decide
        self.done = done
        self.timer: Timer | None = None
        """While it waits for its turn."""


class StoreWrite:
    """A job of the store: changes of one address that `ask` wants, or of several that have expired (None)."""

    __slots__ = ("ask", "aors", "changes", "job", "timer")

    def __init__(self, ask: Ask | None, aors: Collection[str], changes: Sequence[Change]) -> None:
        self.ask = ask
        self.aors = aors
        self.changes = changes
        self.job = 0
        self.timer: Timer | None = None


class Writes:
    """All writes of one engine; `freed()` is called when an address is not held any more."""

    def __init__(self, node: Node, location: Location, freed: Callable[[], None]) -> None:
        self.under_way = 0
        """Asks and writes that have not ended."""
        self._node = node
        self._location = location
        self._freed = freed
        self._most = node.settings.limits.location_writes
        self._limit = node.settings.location_timeout
        self._longest = self._limit + GRACE
        self._held: dict[str, deque[Ask]] = {}
        """Address → who waits for it."""
        self._doubts: dict[str, dict[tuple[bytes, str], Binding]] = {}
        """Address → bindings by their key of which the store may know something else than the table."""

    @property
    def idle(self) -> bool:
        return not self.under_way

    def change(self, aor: str, decide: Decide, done: Done) -> None:
        """Change the bindings of an address when its turn comes; `done` is told once, in this turn or a later one."""
        ask = Ask(aor, decide, done)
        if self.under_way >= self._most:
            self._node.count("location.full")
            done((), (), StoreError("too many writes are under way (limits: location_writes)"))
        elif aor in self._held:
            self.under_way += 1
            ask.timer = self._node.timers.after(self._longest, self._waited, ask)
            self._held[aor].append(ask)
        else:
            self._begin(ask)

    def expire(self, now: float) -> Sequence[Change]:
        """Take out what has expired, but for held addresses, and have the store forget it. Never fails."""
        gone = self._location.take_expired(now, self._held)
        if gone:
            try:
                self._write(None, {change.binding.aor for change in gone}, gone)
            except StoreError:
                self._location.unwritten += len(gone)
        return gone

    # --- one after the other ------------------------------------------------------------------------------------------

    def _begin(self, ask: Ask) -> bool:
        """Returns whether the address is held for it."""
        location, aor = self._location, ask.aor
        standing = location.bindings(aor, self._node.wall)
        changes: Sequence[Change] = ()
        try:
            changes = ask.decide(standing)
            if changes and self._write(ask, (aor,), changes):
                return True
        except SipError as error:
            ask.done((), standing, error)
            return False
        ask.done(changes, location.apply(aor, changes) if changes else standing, None)
        return False

    def _write(self, ask: Ask | None, aors: Collection[str], changes: Sequence[Change]) -> bool:
        """Hand changes to the store. Returns whether it answers later. Raises StoreError."""
        node = self._node
        work = self._location.write([*changes, *self._said_anew(aors, changes)] if self._doubts else changes)
        if work is None:
            self._settle(aors)
            return False
        write = StoreWrite(ask, aors, changes)
        self._location.claim(changes)
        for aor in aors:
            self._held.setdefault(aor, deque())
        self.under_way += 1
        write.timer = node.timers.after(self._longest, self._never_ended, write)
        write.job = node.job(Write(work, self._limit), partial(self._ended, write))
        return True

    def _ended(self, write: StoreWrite, result: Any) -> None:
        """The store has answered: None, or an error."""
        location, error = self._location, None if result is None else StoreError(str(result))
        if write.timer is not None:
            write.timer.cancel()
        self.under_way -= 1
        location.release(write.changes)
        location.note(error)
        try:
            if error is None:
                self._settle(write.aors)
                if write.ask is not None:
                    write.ask.done(write.changes, location.apply(write.ask.aor, write.changes), None)
            elif write.ask is not None:
                self._doubt(write)
                write.ask.done((), (), error)
            else:
                location.unwritten += len(write.changes)
        finally:
            for aor in write.aors:
                self._next(aor)

    def _next(self, aor: str) -> None:
        """The address is free for the next one that waits for it, in a turn of its own: a bug costs nobody else."""
        waiting = self._held[aor]
        if waiting:
            ask = waiting.popleft()
            if ask.timer is not None:
                ask.timer.cancel()
            self._node.timers.after(0.0, self._take_turn, ask)
        else:
            del self._held[aor]
            self._location.remind(aor)
            self._freed()

    def _take_turn(self, ask: Ask) -> None:
        self.under_way -= 1
        held = False
        try:
            held = self._begin(ask)
        finally:
            if not held:
                self._next(ask.aor)

    def _waited(self, ask: Ask) -> None:
        """Its turn did not come in time: nothing was done for it."""
        self._held[ask.aor].remove(ask)
        self.under_way -= 1
        self._node.count("location.timeout")
        ask.done((), (), StoreError("earlier writes of the address took too long"))

    def _never_ended(self, write: StoreWrite) -> None:
        """The store has not answered at all; should it still do so, nobody listens."""
        self._node.done_of(write.job)
        self._node.count("location.timeout")
        self._ended(write, StoreError("the store did not answer"))

    # --- what the store may have done ---------------------------------------------------------------------------------

    def _doubt(self, write: StoreWrite) -> None:
        for change in write.changes:
            doubtful = self._doubts.setdefault(change.binding.aor, {})
            doubtful[change.binding.key] = change.binding
            if len(doubtful) > MOST_OF_ONE:
                doubtful.popitem()
        while len(self._doubts) > MOST_DOUBTS:
            del self._doubts[next(iter(self._doubts))]

    def _said_anew(self, aors: Iterable[str], changes: Sequence[Change]) -> list[Change]:
        """What stands of the contacts in doubt that these changes do not name."""
        named = {(change.binding.aor, change.binding.key) for change in changes}
        found = []
        for aor in aors:
            standing = {binding.key: binding for binding in self._location.bindings(aor, self._node.wall)}
            for key, binding in self._doubts.get(aor, {}).items():
                if (aor, key) not in named:
                    stands = standing.get(key)
                    found.append(Change("refreshed", stands) if stands else Change("removed", binding))
        return found

    def _settle(self, aors: Iterable[str]) -> None:
        """The store knows what the table knows."""
        if self._doubts:
            for aor in aors:
                self._doubts.pop(aor, None)
