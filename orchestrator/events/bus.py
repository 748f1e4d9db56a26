"""The bus: who hears of an event is looked up, not searched for.

A filter is a set of equalities and, rarely, a condition that is left over. All subscriptions of one event that test
the same attributes stand in one table whose key is the tuple of wanted values; the call counts as an attribute.
Publishing takes one hash lookup per table (an event has a handful, however many calls wait) and evaluates the
leftover condition only on what is found there. OpenSIPS walks all subscriptions of an event under a lock
(ebr_data.c:notify_ebr_subscriptions), so that a REGISTER grows dearer with each call that waits; here 100,000 cost what
300 do. `OPENSIPS=<its program> make bench ARGS='--only wakeup bus'` measures both.

Order is that of registration, over all tables. A subscription made while an event is delivered does not see that
event, one cancelled before its turn does not either. An event published inside a delivery is delivered there and
then, at most `MAX_DEPTH` deep: deeper is a loop of events that would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from orchestrator.errors import StepError
from orchestrator.events.event import Event
from orchestrator.timers import Timer, Timers

MAX_DEPTH = 8
"""Events raised by the handler of an event raised by … (FLOWLANG §5 raise)."""

Deliver = Callable[[Event, "Subscription"], object]
Accept = Callable[[Event, "Subscription"], bool]
Expire = Callable[["Subscription"], None]

_ABSENT = object()
"""Stands for an attribute that an event lacks: equal to no wanted value."""


class Subscription:
    """One party waiting for one kind of event.

    `left` is how many events it still takes (None: no bound), `taken` how many it took, `owner` whatever the subscriber
    put there.
    """

    __slots__ = ("_key", "_table", "_timer", "accept", "deliver", "left", "number", "on_expire", "owner", "taken")

    def __init__(self, table: _Table, key: Any, number: int, deliver: Deliver) -> None:
        self._table: _Table | None = table
        self._key = key
        self._timer: Timer | None = None
        self.number = number
        self.deliver = deliver
        self.accept: Accept | None = None
        self.on_expire: Expire | None = None
        self.left: int | None = None
        self.taken = 0
        self.owner: Any = None

    @property
    def armed(self) -> bool:
        return self._table is not None

    def cancel(self) -> None:
        """Hear of nothing any more; idempotent, and legal inside a delivery."""
        self._disarm()
        self.owner = self.accept = None  # they refer to us: what is over does not wait for a search for cycles

    def _disarm(self) -> None:
        table = self._table
        if table is not None:
            self._table = None
            table.remove(self._key, self)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def expire(self) -> None:
        """What the timer does: cancel, then tell `on_expire`."""
        self._disarm()
        if self.on_expire is not None:
            self.on_expire(self)
        self.cancel()

    @property
    def due(self) -> float | None:
        """When it expires, in seconds of the engine's clock; None when it does not."""
        return self._timer.when if self._timer is not None else None

    @property
    def wanted(self) -> dict[str, Any]:
        """Attribute → value the event must have; for explanations. Empty once it is cancelled."""
        table = self._table
        if table is None:
            return {}
        return dict(zip(table.names, (self._key,) if table.single else self._key, strict=True))

    def __repr__(self) -> str:
        return f"<Subscription {self.number} {self.wanted if self.armed else 'cancelled'} took {self.taken}>"


class _Table:
    """The subscriptions of one event that test the same attributes, by wanted values.

    The pseudo attribute '' is the call. A key with one value is that value, not a tuple of one. A bucket of one is the
    subscription itself: with 100,000 waiting calls nearly all are, and a dict each would cost 200 octets.
    """

    __slots__ = ("_tables", "_total", "buckets", "names", "single")

    def __init__(self, names: tuple[str, ...], tables: dict[tuple[str, ...], _Table], total: list[int]) -> None:
        self._total = total
        self.names = names
        self.single = len(names) == 1
        self.buckets: dict[Any, Subscription | dict[int, Subscription]] = {}
        self._tables = tables

    def find(self, event: Event, found: list[Subscription]) -> None:
        """Append the subscriptions whose values are those of the event."""
        attributes = event.attributes
        if self.single:
            name = self.names[0]
            key = attributes.get(name, _ABSENT) if name else event.call
        else:
            key = tuple([attributes.get(name, _ABSENT) if name else event.call for name in self.names])
        try:
            bucket = self.buckets.get(key)
        except TypeError:  # a list or map: nobody can wait for it by value, see Bus.subscribe
            return
        if bucket is None:
            return
        if isinstance(bucket, dict):
            found.extend(bucket.values())
        else:
            found.append(bucket)

    def add(self, key: Any, subscription: Subscription) -> None:
        self._total[0] += 1
        bucket = self.buckets.setdefault(key, subscription)
        if isinstance(bucket, dict):
            bucket[subscription.number] = subscription
        elif bucket is not subscription:
            self.buckets[key] = {bucket.number: bucket, subscription.number: subscription}

    def remove(self, key: Any, subscription: Subscription) -> None:
        self._total[0] -= 1
        bucket = self.buckets[key]
        if isinstance(bucket, dict):
            del bucket[subscription.number]
            if bucket:
                return
        del self.buckets[key]
        if not self.buckets:
            self._tables.pop(self.names, None)

    def __iter__(self) -> Iterator[Subscription]:
        for bucket in self.buckets.values():
            if isinstance(bucket, dict):
                yield from bucket.values()
            else:
                yield bucket


class Bus:
    """Subscriptions of one engine. Pure: time comes through `timers`, deliveries are plain calls."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._events: dict[str, dict[tuple[str, ...], _Table]] = {}
        self._number = 0
        self._total = [0]
        self.depth = 0
        """How many deliveries deep we are. A party that queues what it is delivered puts this back before it acts on
        it, so that the bound on nesting follows the cause and not the Python stack."""
        self.settle: Callable[[], None] | None = None
        """Called when the outermost publish is done: work queued by deliveries runs then, after all have been told."""
        self.watchers: tuple[Callable[[Event], object], ...] = ()
        """Told every event before it is delivered: the history of calls, explanations."""
        self._taps: dict[str, tuple[Callable[[Event], object], ...]] = {}
        self.on_fault: Callable[[Subscription, Exception], object] | None = None
        """Given what a filter or a delivery raised, so that the other subscribers hear of the event all the same."""
        self.published = 0

    def subscribe(
        self,
        event: str,
        deliver: Deliver,
        *,
        call: str | None = None,
        equals: Mapping[str, Any] | None = None,
        accept: Accept | None = None,
        limit: int | None = None,
        expires_in: float | None = None,
        on_expire: Expire | None = None,
        owner: Any = None,
    ) -> Subscription:
        """Call `deliver(event, subscription)` for each event of that name that fits.

        Args:
            call: only events of this call; None takes every call's.
            equals: attribute → value the event must have, exactly; lists and maps too, they are compared one by one.
            accept: the rest of the filter, asked last and once per event; True means the event is taken.
            limit: cancel after that many events. At least 1.
            expires_in: seconds until it is cancelled and `on_expire(subscription)` is called.
            owner: kept for the subscriber.
        """
        names, key = _key(call, equals)
        try:
            hash(key)
        except TypeError:
            comparable = {name: value for name, value in (equals or {}).items() if _hashable(value)}
            accept = _also_equal({n: v for n, v in (equals or {}).items() if n not in comparable}, accept)
            names, key = _key(call, comparable)
        table = self._table(event, names)
        self._number += 1
        subscription = Subscription(table, key, self._number, deliver)
        subscription.accept = accept
        subscription.left = limit
        subscription.owner = owner
        table.add(key, subscription)
        if expires_in is not None:
            subscription.on_expire = on_expire
            subscription._timer = self._timers.after(expires_in, Subscription.expire, subscription)
        return subscription

    def _table(self, event: str, names: tuple[str, ...]) -> _Table:
        tables = self._events.get(event)
        if tables is None:
            tables = self._events[event] = {}
        table = tables.get(names)
        if table is None:
            table = tables[names] = _Table(names, tables, self._total)
        return table

    def publish(self, event: Event) -> int:
        """Deliver the event; returns how many subscriptions took it.

        Raises:
            StepError: `flow.limit`, when this is the ninth of a nest of deliveries; nobody hears of the event then.
        """
        event.depth = self.depth + 1
        if event.depth > MAX_DEPTH:
            raise StepError("flow.limit", f"event {event.name!r} is raised more than {MAX_DEPTH} events deep")
        self.published += 1
        for told in self.watchers:
            told(event)
        for told in self._taps.get(event.name, ()):
            told(event)
        tables = self._events.get(event.name)
        if not tables:
            return 0
        found: list[Subscription] = []
        for table in tables.values():
            table.find(event, found)
        if not found:
            return 0
        if len(found) > 1:
            found.sort(key=_by_number)
        self.depth = event.depth
        try:
            return self._deliver(event, found)
        finally:
            self.depth -= 1
            if self.depth == 0 and self.settle is not None:
                self.settle()

    def _deliver(self, event: Event, found: list[Subscription]) -> int:
        taken = 0
        for subscription in found:
            try:
                taken += _hand_over(event, subscription)
            except Exception as bug:
                if self.on_fault is None:
                    raise
                self.on_fault(subscription, bug)
        return taken

    def as_caused_by(self, event: Event, act: Callable[[Event], object]) -> None:
        """Do what an event causes that had to wait for its turn, as deep in the nest as the event is."""
        before, self.depth = self.depth, event.depth
        try:
            act(event)
        finally:
            self.depth = before

    def hears(self, name: str) -> bool:
        """Whether anybody subscribes to events of this name: an event nobody hears need not be made."""
        return bool(self._events.get(name)) or name in self._taps

    def watch(self, told: Callable[[Event], object]) -> None:
        """Call `told` with every event that is published, whoever it is for; see `tap`."""
        self.watchers = (*self.watchers, told)

    def unwatch(self, told: Callable[[Event], object]) -> None:
        """Call it no more."""
        self.watchers = tuple(other for other in self.watchers if other != told)

    def tap(self, name: str, told: Callable[[Event], object]) -> None:
        """Call `told` with each event of this name before it is delivered: it does not count among those who take it.
        It must neither wait nor raise."""
        self._taps[name] = (*self._taps.get(name, ()), told)

    def untap(self, name: str, told: Callable[[Event], object]) -> None:
        """Call it no more."""
        left = tuple(other for other in self._taps.pop(name, ()) if other != told)
        if left:
            self._taps[name] = left

    def of(self, name: str) -> Iterator[Subscription]:
        """Armed subscriptions to events of this name."""
        return (subscription for table in self._events.get(name, {}).values() for subscription in table)

    def __iter__(self) -> Iterator[Subscription]:
        """Armed subscriptions, in no particular order."""
        return (subscription for tables in self._events.values() for table in tables.values() for subscription in table)

    def __len__(self) -> int:
        """Armed subscriptions."""
        return self._total[0]


_by_number = attrgetter("number")


def _hand_over(event: Event, subscription: Subscription) -> bool:
    """Deliver to one; whether it took the event."""
    if subscription._table is None:  # cancelled by a delivery before this one
        return False
    accept = subscription.accept
    if accept is not None and not accept(event, subscription):
        return False
    subscription.taken += 1
    if subscription.left is not None:
        subscription.left -= 1
        if subscription.left <= 0:
            subscription._disarm()
    subscription.deliver(event, subscription)
    if not subscription.armed:
        subscription.cancel()
    return True


def _key(call: str | None, equals: Mapping[str, Any] | None) -> tuple[tuple[str, ...], Any]:
    """The attributes tested, sorted, and the table's key: their values."""
    if not equals:
        return ((), ()) if call is None else (("",), call)
    names = sorted(equals)
    values = [equals[name] for name in names]
    if call is not None:
        names.insert(0, "")
        values.insert(0, call)
    return tuple(names), values[0] if len(values) == 1 else tuple(values)


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _also_equal(wanted: Mapping[str, Any], accept: Accept | None) -> Accept:
    def accepts(event: Event, subscription: Subscription) -> bool:
        if any(event.attributes.get(name, _ABSENT) != value for name, value in wanted.items()):
            return False
        return accept is None or accept(event, subscription)

    return accepts
