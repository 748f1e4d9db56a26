"""Who is registered where: bindings, the rules for changing them, and the table that answers lookups.

A REGISTER asks for changes to the bindings of one address of record (RFC 3261 §10.3). `decide` turns what stands and
what is asked into a list of `Change`s or refuses the request as a whole; nothing is half done. `Location` writes the
changes to its store first and to its table second: a phone that reads its 200 finds its binding after a crash, and a
store that fails leaves the table as it was and the phone with a 503.

Which contact is "the same" decides whether a phone rings once or twice. RFC 3261 compares URIs, but a phone that wakes
up on another network comes back from another port. So the device is asked first: `+sip.instance` with `reg-id`
(RFC 5626 §6), then the push registration `pn-provider`, `pn-prid`, `pn-param` (RFC 8599), and the URI last
(RFC 3261 §19.1.4).

Times are seconds since the epoch and come in as `now`. Whoever drives the table is expected to read the wall clock once
and to add monotonic time to it, so that a clock set back or forth neither expires all phones nor keeps one for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Literal, Protocol

from orchestrator.errors import MalformedMessage, SipError, StoreError
from orchestrator.sip.route_token import KEY_SIZE
from orchestrator.sip.uri import Uri, parse_uri, uris_equal

MAX_CONTACTS = 10
"""Bindings per address of record unless told otherwise: more is a leak or an attack (one REGISTER may list 600)."""
MAX_BINDINGS = 200_000
"""Bindings in all, unless told otherwise."""
MAX_FROM_SOURCE = 10_000
"""Bindings that one source has registered, unless told otherwise: more than a large office behind one NAT."""


@dataclass(slots=True)
class Binding:
    """One contact of an address of record. Never changed once it stands in a table; a refresh puts a new one."""

    aor: str
    """`user@host`, unescaped, host in lower case."""
    contact: bytes
    """The URI as registered, without header parameters."""
    expires_at: float
    """Seconds since the epoch."""
    q: float = 1.0
    call_id: bytes = b""
    cseq: int = 0
    path: tuple[bytes, ...] = ()
    """Path values in the order of the REGISTER (RFC 3327)."""
    received: tuple[str, int] | None = None
    """Source address when it differs from the contact's: a phone behind NAT."""
    transport: str = "udp"
    user_agent: str = ""
    instance: str | None = None
    """`+sip.instance` without its quotes and angle brackets."""
    reg_id: int | None = None
    registered_at: float = 0.0
    extra: Mapping[str, str] | None = None
    """What the flow that saved it keeps with it (`register: {extra: …}`), None when that is nothing."""
    source: str = ""
    """Whom it counts for (`sip.admission.source_name`): whence the REGISTER came."""
    parameters: bytes = b""
    """The Contact's parameters but for `expires`, as each 200 to a REGISTER gives them back: `;q=0.7;reg-id=1`."""

    @property
    def uri(self) -> str:
        return self.contact.decode("utf-8", "replace")

    @property
    def mobile(self) -> bool:
        """It can be woken by a push (RFC 8599): the contact names a push service."""
        return bool(self.pn_provider)

    @property
    def pn_provider(self) -> str | None:
        return self._uri_parameter(b"pn-provider")

    @property
    def pn_param(self) -> str | None:
        return self._uri_parameter(b"pn-param")

    @property
    def pn_prid(self) -> str | None:
        return self._uri_parameter(b"pn-prid")

    def _uri_parameter(self, name: bytes) -> str | None:
        if b"pn-" not in self.contact.lower():
            return None
        uri = _parsed(self.contact)
        value = uri.params.get(name) if uri is not None else None
        return None if value is None else value.decode("utf-8", "replace")


ChangeKind = Literal["added", "refreshed", "removed", "replaced", "expired"]


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a table. `added` and `refreshed` bindings stand afterwards, the others are gone.

    A phone that moved gives two: `refreshed` with its new contact and `previous`, and `replaced` with the old one.
    """

    kind: ChangeKind
    binding: Binding
    previous: Binding | None = None

    @property
    def stands(self) -> bool:
        return self.kind in ("added", "refreshed")


Work = Callable[[], None]
"""A write that a store carries out later. It is called once, in a greenlet that may wait: for a socket, for a thread.

Durable on return; raises StoreError when nothing was written. When the time of a write is over, `gevent.Timeout` is
raised where it waits: it must not be carried out after a write that is begun later (close the connection, or keep one
queue for all). Writes of one address of record are begun one after the other.
"""


class LocationStore(Protocol):
    """Where bindings survive a restart."""

    def load(self, now: float) -> Iterable[Binding]:
        """All bindings that live after `now`; the others are forgotten. Called before the server serves, so it may
        wait. Raises StoreError."""

    def route_key(self, fresh: bytes) -> bytes:
        """The key of our Record-Routes (`sip.route_token`): the one that is kept, else `fresh`, which is kept from now
        on. Called once, after `load`, and may wait as well. Raises StoreError."""

    def write(self, changes: Sequence[Change]) -> Work | None:
        """Keep the binding of each change that `stands`, keyed by address of record and contact; remove the others.
        All or nothing.

        None: it is done, durable on return. That must be quick and must not wait, or all calls wait. A store that
        waits hands the rest over as `Work`; phones get their 200 after it. Raises StoreError when nothing was written.
        """

    def close(self) -> None:
        """Let go of files and connections. Idempotent; not called while a `Work` runs."""


# --- which contact is the same ----------------------------------------------------------------------------------------


def same_contact(a: Binding, b: Binding) -> bool:
    """Do two bindings of one address of record lead to the same phone?"""
    if a.contact == b.contact:
        return True
    if a.instance is not None and b.instance is not None:
        return a.instance == b.instance and a.reg_id == b.reg_id
    first, second = _parsed(a.contact), _parsed(b.contact)
    if first is None or second is None:
        return False
    return _same_push_registration(first, second) or uris_equal(first, second)


def _same_push_registration(a: Uri, b: Uri) -> bool:
    """RFC 8599: provider and PRID (with the provider's own parameter) name one app on one device."""
    provider, prid = a.params.get(b"pn-provider"), a.params.get(b"pn-prid")
    if not provider or not prid:
        return False
    return (
        provider == b.params.get(b"pn-provider")
        and prid == b.params.get(b"pn-prid")
        and a.params.get(b"pn-param") == b.params.get(b"pn-param")
    )


def _is_other_device(a: Binding, b: Binding) -> bool:
    return a.instance is not None and b.instance is not None and (a.instance, a.reg_id) != (b.instance, b.reg_id)


def _same_uri(a: Binding, b: Binding) -> bool:
    """RFC 3261 §19.1.4; of two devices the URIs are not compared."""
    if _is_other_device(a, b):
        return False
    first, second = _parsed(a.contact), _parsed(b.contact)
    return a.contact == b.contact or (first is not None and second is not None and uris_equal(first, second))


def _meant(wanted: Binding, standing: Iterable[Binding], kept: Collection[bytes], removal: bool) -> list[Binding]:
    """The standing bindings that one Contact value of a REGISTER means.

    A removal means its URI and nothing else, or a phone that has moved would take out the binding it has just made;
    only one with `reg-id` may name its flow under another URI (RFC 5626 §6). Any other value means its device under
    whatever URI, but not under one that the same REGISTER asks to keep (`kept`): a phone may have two contacts.
    """
    if removal:
        found = [binding for binding in standing if _same_uri(binding, wanted)]
        if found or wanted.instance is None or wanted.reg_id is None:
            return found
        return [binding for binding in standing if binding.contact not in kept and same_contact(binding, wanted)]
    return [
        binding
        for binding in standing
        if same_contact(binding, wanted)
        and (binding.contact == wanted.contact or binding.contact not in kept or not _may_stand_beside(binding, wanted))
    ]


def _may_stand_beside(a: Binding, b: Binding) -> bool:
    """Two contacts of one device, asked for together: without `reg-id` RFC 3261 and RFC 5627 have both stand; one flow,
    one push registration and one URI are one."""
    if a.instance is None or b.instance is None or b.reg_id is not None:
        return False
    first, second = _parsed(a.contact), _parsed(b.contact)
    return first is None or second is None or not (_same_push_registration(first, second) or uris_equal(first, second))


def _parsed(contact: bytes) -> Uri | None:
    try:
        return parse_uri(contact)
    except MalformedMessage:  # only a damaged store holds one: it equals nothing and is not mobile
        return None


# --- RFC 3261 §10.3, steps 6 and 7 ------------------------------------------------------------------------------------


def decide(
    current: Sequence[Binding],
    asked: Sequence[Binding],
    now: float,
    max_contacts: int = MAX_CONTACTS,
    replace: bool = False,
) -> list[Change]:
    """What the contacts of one REGISTER change in the live bindings of its address of record.

    `asked` holds one binding per Contact value, all with the Call-ID and CSeq of the request; one that expires at or
    before `now` is a removal. Raises SipError 400 when a binding was changed by a later request of the same Call-ID
    (step 7), and 403 when a new phone would be one too many. A contact asked for with the very CSeq that stands is a
    retransmission that outlived its transaction, for instance over a restart: it changes nothing and is no error.
    With `replace` the phones heard of longest ago make room for a new one instead.
    """
    if len(asked) > len(current) + max_contacts:  # not even if it removed all that stand: no work for it
        raise SipError(403, "Too Many Contacts")
    standing = {binding.contact: binding for binding in current}
    own = {id(binding) for binding in asked}
    kept = {wanted.contact for wanted in asked if wanted.expires_at > now}
    for wanted in asked:
        removal = wanted.expires_at <= now
        same = _meant(wanted, standing.values(), kept, removal)
        earlier = [binding for binding in same if id(binding) not in own and binding.call_id == wanted.call_id]
        _check_order(earlier, wanted.cseq, removal)
        if any(binding.cseq == wanted.cseq for binding in earlier):
            continue
        for binding in same:
            del standing[binding.contact]
        if not removal:
            standing[wanted.contact] = wanted
    if replace and len(standing) > max_contacts:
        others = (binding for binding in standing.values() if id(binding) not in own)
        for oldest in sorted(others, key=lambda binding: binding.registered_at)[: len(standing) - max_contacts]:
            del standing[oldest.contact]
    changes = _difference(current, standing)
    if len(standing) > max_contacts and any(change.kind == "added" for change in changes):
        raise SipError(403, "Too Many Contacts")
    return changes


def decide_removal(current: Sequence[Binding], call_id: bytes, cseq: int) -> list[Change]:
    """What `Contact: *` with `Expires: 0` changes (step 6): every binding goes. Raises SipError 400 like `decide`."""
    _check_order((binding for binding in current if binding.call_id == call_id), cseq, removal=True)
    return [Change("removed", binding) for binding in current]


def _check_order(bindings: Iterable[Binding], cseq: int, removal: bool) -> None:
    """A request overtaken by a later one of its Call-ID fails as a whole; an equal CSeq can only repeat a refresh."""
    if any(binding.cseq > cseq or (removal and binding.cseq == cseq) for binding in bindings):
        raise SipError(400, "CSeq Out Of Order")


def _difference(before: Sequence[Binding], after: Mapping[bytes, Binding]) -> list[Change]:
    """The changes that lead from one set of bindings to the other, new contacts first."""
    changes = []
    for binding in after.values():
        if not any(binding is old for old in before):
            candidates = (old for old in before if old.contact == binding.contact or old.contact not in after)
            previous = next((old for old in candidates if same_contact(old, binding)), None)
            changes.append(Change("refreshed" if previous else "added", binding, previous))
    for old in before:
        if old.contact not in after:
            moved = any(same_contact(old, binding) for binding in after.values())
            changes.append(Change("replaced" if moved else "removed", old))
    return changes


# --- the table --------------------------------------------------------------------------------------------------------


class Location:
    """All bindings of one registrar: a table in memory, written through to `store`.

    Costs with 100,000 bindings, CPython 3.11: 0.15 µs for a lookup, 0.75 KB for a binding, 0.75 s to load from SQLite.
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
        self._from: dict[str, int] = {}
        """Source → its bindings."""
        self.unwritten = 0
        """Expired bindings whose rows the store would not delete. It forgets them by itself at the next `load`."""
        self._table: dict[str, tuple[Binding, ...]] = {}
        self._route_key = b""
        self._count = 0
        self._due: list[tuple[float, str]] = []
        """Heap of (expiry, aor), one entry per binding; those of bindings refreshed since are holes."""

    def load(self, now: float) -> int:
        """Fill the empty table from the store; returns the number of bindings. Raises StoreError."""
        found: dict[str, list[Binding]] = {}
        for binding in self.store.load(now):
            found.setdefault(binding.aor, []).append(binding)
        for aor, bindings in found.items():
            self._put(aor, bindings)
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
        return next((new for new in live if new is binding or new.contact == binding.contact), None) or next(
            (new for new in live if same_contact(new, binding)), binding
        )

    def save(
        self,
        aor: str,
        asked: Sequence[Binding],
        now: float,
        max_contacts: int | None = None,
        replace: bool = False,
    ) -> list[Change]:
        """Carry out the contacts of one REGISTER; see `decide`. Raises SipError; StoreError when nothing was changed.

        `max_contacts` overrides the table's own bound for this request.
        """
        limit = self.max_contacts if max_contacts is None else max_contacts
        changes = decide(self.bindings(aor, now), asked, now, limit, replace)
        self._check_room(changes)
        return self._apply(aor, changes)

    def remove_all(self, aor: str, call_id: bytes, cseq: int, now: float) -> list[Change]:
        """Carry out `Contact: *`; see `decide_removal`. Raises SipError; StoreError when nothing was changed."""
        return self._apply(aor, decide_removal(self.bindings(aor, now), call_id, cseq))

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

    def expire(self, now: float) -> list[Change]:
        """Take out what has expired by `now`. Never fails: a phone that is gone is gone, whatever the store says."""
        gone: list[Change] = []
        while self._due and self._due[0][0] <= now:
            aor = heappop(self._due)[1]
            expired = [binding for binding in self._table.get(aor, ()) if binding.expires_at <= now]
            if expired:
                self._put(aor, self.bindings(aor, now))
                gone.extend(Change("expired", binding) for binding in expired)
        if gone:
            try:
                self.store.write(gone)
            except StoreError:
                self.unwritten += len(gone)
        return gone

    def __len__(self) -> int:
        """Bindings in the table, those that expired since the last `expire` included."""
        return self._count

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
        if self._count + len(new) - gone > self.max_bindings:
            self.refused["bindings"] += 1
            raise SipError(503, "Too Many Registrations")
        if new[0] and self._from.get(new[0], 0) + len(new) - gone > self.max_from_source:  # of one REGISTER, one source
            self.refused["source"] += 1
            raise SipError(403, "Too Many Contacts From This Address")

    def _apply(self, aor: str, changes: list[Change]) -> list[Change]:
        put = [change.binding for change in changes if change.stands]
        if not changes:
            return changes
        self.store.write(changes)
        gone = {change.binding.contact for change in changes}
        kept = [binding for binding in self._table.get(aor, ()) if binding.contact not in gone]
        self._put(aor, kept + put)
        for binding in put:
            heappush(self._due, (binding.expires_at, aor))
        if len(self._due) > 2 * self._count + 1000:  # phones that refresh long before they expire leave holes
            self._rebuild_due()
        return changes

    def _put(self, aor: str, bindings: Sequence[Binding]) -> None:
        before = self._table.get(aor, ())
        self._count += len(bindings) - len(before)
        for binding in before:
            left = self._from[binding.source] - 1
            if left:
                self._from[binding.source] = left
            else:
                del self._from[binding.source]
        for binding in bindings:
            self._from[binding.source] = self._from.get(binding.source, 0) + 1
        if bindings:
            self._table[aor] = tuple(sorted(bindings, key=lambda b: (-b.q, -b.registered_at)))
        else:
            self._table.pop(aor, None)

    def _rebuild_due(self) -> None:
        self._due = [(binding.expires_at, binding.aor) for binding in self]
        heapify(self._due)
