"""Who is registered where: the table that answers lookups, and the store in which it survives a restart.

The changes that a REGISTER asks for (`sip.binding`) are written to the store first and applied to the table second: a
phone that reads its 200 finds its binding after a crash, and a store that fails leaves the table as it was and the
phone with a 503. `core.location_writes` does so for the requests of an engine; `save` and `expire` do it
at once, for whoever may wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush

from orchestrator.errors import SipError, StoreError
from orchestrator.sip.binding import MAX_CONTACTS, Binding, Change, decide, is_overtaken, same_contact
from orchestrator.sip.route_token import KEY_SIZE
from orchestrator.sip.stores import LocationStore, StoreWork

__all__ = ["MAX_CONTACTS", "Binding", "Change", "Location"]

MAX_BINDINGS = 200_000
"""Bindings in all, unless told otherwise."""
MAX_FROM_SOURCE = 10_000
"""Bindings that one source has registered, unless told otherwise: more than a large office behind one NAT."""


class Location:
    """All bindings of one registrar: a table in memory, written through to `store`.

    Costs with 100,000 bindings, CPython 3.11: 0.15 µs for a lookup, 0.75 KB for a binding.
    """

    def __init__(
        self,
        store: LocationStore,
        max_contacts: int = MAX_CONTACTS,
        max_bindings: int = MAX_BINDINGS,
        max_from_source: int = MAX_FROM_SOURCE,
    ) -> None:
        self.store = store
        self.max_contacts = max_contacts
        self.max_bindings = max_bindings
        self.max_from_source = max_from_source
        self.refused: Counter[str] = Counter()
        """Registrations refused because the table (`bindings`) or the part of one source (`source`) was full."""
        self._over: dict[int, set[str]] = {}
        """Connection → addresses with a binding that came over it."""
        self._from: dict[str, int] = {}
        """Source → its bindings."""
        self._claimed: Counter[str] = Counter()
        """Source → bindings that are being written."""
        self.unwritten = 0
        """Expired bindings whose rows the store would not delete. It forgets them by itself at the next `load`."""
        self.trouble = ""
        """Why the last write failed; '' while writes succeed."""
        self.failures = 0
        """Writes that failed."""
        self.on_trouble: Callable[[str], object] | None = None
        """Told `trouble` when writes begin to fail, and '' when they succeed again."""
        self.on_fault: Callable[[Exception], object] | None = None
        """Told of a bug of the store, which is then one more write that has failed."""
        self._table: dict[str, tuple[Binding, ...]] = {}
        self._route_key = b""
        self._count = 0
        self._due: list[tuple[float, str]] = []
        """Heap of (expiry, aor), one entry per binding; those of bindings refreshed since are holes."""

    def load(self, now: float) -> int:
        """Fill the empty table from the store; returns the number of bindings. Raises StoreError."""
        table, sources = self._table, self._from
        for binding in self.store.load(now):
            aor, source = binding.aor, binding.source
            known = table.get(aor)
            if known is not None or binding.connection:
                self._put(aor, [*(known or ()), binding])
            else:  # what _put does for the only one of an address, as most are
                table[aor] = (binding,)
                sources[source] = sources.get(source, 0) + 1
                self._count += 1
        self._rebuild_due()
        return self._count

    def route_key(self, entropy: Callable[[int], bytes]) -> bytes:
        """The key of our Record-Routes (`sip.route_token`), drawn and written once: dialogs outlive a restart as
        registrations do."""
        if not self._route_key:
            fresh = entropy(KEY_SIZE)
            try:
                self._route_key = self.store.route_key(fresh)
            except StoreError:  # the key lives as long as we do; that phones are answered 503 now is news enough
                self._route_key = fresh
        return self._route_key

    def bindings(self, aor: str, now: float) -> tuple[Binding, ...]:
        """The live bindings of `aor`, highest q first, newest first among equals (RFC 3261 §16.6)."""
        found = self._table.get(aor, ())
        for binding in found:
            if binding.expires_at <= now:
                return tuple(live for live in found if live.expires_at > now)
        return found

    def standing(self, binding: Binding, now: float) -> Binding:
        """What has become of a binding: the live one of the same address that leads to the same phone, else itself."""
        live = self.bindings(binding.aor, now)
        return next((new for new in live if new is binding or new.key == binding.key), None) or next(
            (new for new in live if same_contact(new, binding)), binding
        )

    def plan(
        self,
        current: Sequence[Binding],
        asked: Sequence[Binding],
        now: float,
        max_contacts: int | None = None,
        replace: bool = False,
    ) -> list[Change]:
        """What the contacts of one REGISTER change in the live bindings of its address; see `decide`. Raises SipError.

        `max_contacts` overrides the table's own bound for this request.
        """
        changes = decide(current, asked, now, self.max_contacts if max_contacts is None else max_contacts, replace)
        self._check_room(changes)
        return changes

    def save(self, aor: str, asked: Sequence[Binding], now: float) -> list[Change]:
        """Plan, write and apply at once, for whoever may wait for the store. Raises SipError; StoreError when nothing
        was changed."""
        return self._do(aor, self.plan(self.bindings(aor, now), asked, now))

    def _do(self, aor: str, changes: list[Change]) -> list[Change]:
        if changes:
            self._write_now(changes)
            self.apply(aor, changes)
        return changes

    def _write_now(self, changes: Sequence[Change]) -> None:
        work = self.write(changes)
        if work is not None:
            work()

    def write(self, changes: Sequence[Change]) -> StoreWork | None:
        """Have the store keep changes; see `LocationStore.write`. Raises StoreError."""
        try:
            work = self.store.write(changes)
        except StoreError as error:
            self.note(error)
            raise
        except (Exception, SystemExit) as bug:  # SystemExit in a turn would end the server
            refused = StoreError(f"the store has a bug: {type(bug).__name__}: {bug}")
            self.note(refused)
            if self.on_fault is not None:
                self.on_fault(bug if isinstance(bug, Exception) else RuntimeError(f"it called sys.exit({bug.code!r})"))
            raise refused from bug
        if work is None and self.trouble:
            self.note(None)
        return work

    def note(self, error: StoreError | None) -> None:
        """A write has failed, or succeeded."""
        before = self.trouble
        self.trouble = "" if error is None else error.detail
        self.failures += error is not None
        if bool(before) != bool(self.trouble) and self.on_trouble is not None:
            self.on_trouble(self.trouble)

    @property
    def next_expiry(self) -> float | None:
        """When `expire` has something to do next, or None."""
        due = self._due
        while due:
            when, aor = due[0]
            if any(binding.expires_at == when for binding in self._table.get(aor, ())):
                return when
            heappop(due)
        return None

    def take_expired(self, now: float, held: Collection[str] = ()) -> list[Change]:
        """Take out what has expired by `now`, and return what is to be written: a phone that is gone is gone, whatever
        the store says. Addresses in `held` keep theirs until `remind`."""
        gone: list[Change] = []
        while self._due and self._due[0][0] <= now:
            aor = heappop(self._due)[1]
            if aor in held:
                continue
            expired = [binding for binding in self._table.get(aor, ()) if binding.expires_at <= now]
            if expired:
                self._put(aor, self.bindings(aor, now))
                gone.extend(Change("expired", binding) for binding in expired)
        return gone

    def remind(self, aor: str) -> None:
        """An address is held no longer: what has expired meanwhile is due."""
        for binding in self._table.get(aor, ()):
            heappush(self._due, (binding.expires_at, aor))

    def expire(self, now: float) -> list[Change]:
        """Take out what has expired and write that at once, for whoever may wait for the store. Never fails."""
        gone = self.take_expired(now)
        if gone:
            try:
                self._write_now(gone)
            except StoreError:
                self.unwritten += len(gone)
        return gone

    def __len__(self) -> int:
        """Bindings in the table, those that expired since the last `expire` included."""
        return self._count

    def addresses(self) -> list[str]:
        """Addresses of record with a binding in the table."""
        return list(self._table)

    def __iter__(self) -> Iterator[Binding]:
        for bindings in self._table.values():
            yield from bindings

    def __repr__(self) -> str:
        return f"<Location {self._count} bindings of {len(self._table)} aors>"

    def _check_room(self, changes: Sequence[Change]) -> None:
        """Room for the new bindings, in the table and in the part of their source. Raises SipError.

        Who is registered stays so: a refresh is taken from wherever it comes.
        """
        new = [change.binding.source for change in changes if change.kind == "added"]
        if not new:
            return
        gone = sum(change.kind == "removed" for change in changes)
        if self._count + self._claimed.total() + len(new) - gone > self.max_bindings:
            self.refused["bindings"] += 1
            raise SipError(503, "Too Many Registrations")
        source = new[0]  # of one REGISTER, one source
        if source and self._from.get(source, 0) + self._claimed[source] + len(new) - gone > self.max_from_source:
            self.refused["source"] += 1
            raise SipError(403, "Too Many Contacts From This Address")

    def claim(self, changes: Sequence[Change]) -> None:
        """Keep room for what is being written."""
        self._claimed.update(change.binding.source for change in changes if change.kind == "added")

    def release(self, changes: Sequence[Change]) -> None:
        """The write that room was claimed for has ended."""
        self._claimed.subtract(change.binding.source for change in changes if change.kind == "added")
        self._claimed += Counter()  # without those that are 0

    def apply(self, aor: str, changes: Sequence[Change]) -> tuple[Binding, ...]:
        """Change the table, when the store has the changes, all of this address. Returns what stands now, in the order
        of `bindings`."""
        put = [change.binding for change in changes if change.stands]
        gone = {change.binding.key for change in changes}
        kept = [binding for binding in self._table.get(aor, ()) if binding.key not in gone]
        self._put(aor, kept + put)
        for binding in put:
            heappush(self._due, (binding.expires_at, aor))
        if len(self._due) > 2 * self._count + 1000:  # phones that refresh long before they expire leave holes
            self._rebuild_due()
        return self._table.get(aor, ())

    def take(self, change: Change, now: float) -> list[Change]:
        """Apply what the store's owner or another node has changed; returns what that changes here: nothing where it
        is known or overtaken, where the same request (Call-ID and CSeq) or a later one stands already."""
        binding, aor = change.binding, change.binding.aor
        standing = next((old for old in self.bindings(aor, now) if old.key == binding.key), None)
        if standing is not None and is_overtaken(change, standing):
            return []
        if not change.stands:
            news = [Change(change.kind, standing)] if standing is not None else []
        elif binding.expires_at <= now:
            news = []
        else:
            known = standing or next((old for old in self.bindings(aor, now) if same_contact(old, binding)), None)
            news = [Change("added" if known is None else "refreshed", binding, known)]
        self.apply(aor, news)
        return news

    def _put(self, aor: str, bindings: Sequence[Binding]) -> None:
        before = self._table.get(aor, ())
        self._count += len(bindings) - len(before)
        for binding in before:
            left = self._from[binding.source] - 1
            if left:
                self._from[binding.source] = left
            else:
                del self._from[binding.source]
            if binding.connection:
                self._leave(binding.connection, aor)
        for binding in bindings:
            self._from[binding.source] = self._from.get(binding.source, 0) + 1
            if binding.connection:
                self._over.setdefault(binding.connection, set()).add(aor)
        if bindings:
            self._table[aor] = tuple(sorted(bindings, key=lambda b: (-b.q, -b.registered_at)))
        else:
            self._table.pop(aor, None)

    def _leave(self, connection: int, aor: str) -> None:
        aors = self._over.get(connection, set())
        aors.discard(aor)
        if not aors:
            self._over.pop(connection, None)

    def registered_over(self, connection: int) -> Sequence[str]:
        """Addresses of record with a binding that came over this connection."""
        return tuple(self._over.get(connection, ()))

    def disconnect(self, aor: str, connection: int) -> None:
        """What is registered for an address over this connection stays, but is not reached over it any more. The store
        knows nothing of connections."""
        standing = self._table.get(aor, ())
        if any(binding.connection == connection for binding in standing):
            self._put(aor, [replace(b, connection=0) if b.connection == connection else b for b in standing])

    def _rebuild_due(self) -> None:
        self._due = [(binding.expires_at, binding.aor) for binding in self]
        heapify(self._due)
