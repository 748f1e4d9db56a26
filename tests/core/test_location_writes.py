"""A location store that answers later: REGISTERs in every order of its answer, with a manual clock.

Nothing is promised that is not stored (RFC 3261 §10.3), REGISTERs of one address are carried out one after the other,
and no answer is waited for for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.jobs import Job, Write
from orchestrator.core.location_writes import GRACE
from orchestrator.core.settings import LOCATION_TIMEOUT, CoreLimits
from orchestrator.core.stopping import give_up
from orchestrator.errors import StepError, StoreError
from orchestrator.events.event import Event
from orchestrator.flow.loader import load_program
from orchestrator.sip.location import Binding, Change
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

BOB, CAROL = "bob@example.com", "carol@example.com"
AT_MOST = LOCATION_TIMEOUT + GRACE


class LaterStore(MemoryStore):
    """Its rows change when the work is done."""

    def write(self, changes: Sequence[Change]) -> Callable[[], None]:  # type: ignore[override]
        return partial(super().write, changes)

    @property
    def contacts(self) -> set[tuple[str, bytes]]:
        return {(aor, contact) for aor, (contact, _) in self._rows}


class Desk:
    """Phones, and a store that does nothing before it is told to."""

    def __init__(self, program: Any = None, **settings: Any) -> None:
        self.store = LaterStore()
        self.world = World(program, store=self.store, **settings)
        self.world.on_job = lambda job: self.world.LATER
        self.events: list[tuple[str, str]] = []
        for name in ("registered", "unregistered"):
            self.world.engine.bus.subscribe(name, self.hear)
        self.peers: dict[str, Peer] = {}

    def hear(self, event: Event, _: object) -> None:
        self.events.append((event.name, str(event.attributes["contact"])))

    def register(self, aor: str = BOB, host: str = "10.0.0.3", **more: Any) -> Ask:
        peer = self.peers.get(host) or self.peers.setdefault(host, self.world.peer(host, host))
        ask = peer.register(aor, **more)
        self.world.run()
        return ask

    @property
    def writes(self) -> list[Job]:
        return [job for job in self.world.jobs if isinstance(job.effect, Write)]

    def answer(self, number: int, error: Exception | None = None) -> None:
        """The store ends a write, the first one being 0; carried out unless it fails."""
        job = self.writes[number]
        assert isinstance(job.effect, Write)
        if error is None:
            job.effect.work()
        self.world.engine.complete(job.id, error, self.world.now)
        self.world.run()

    def contacts(self, aor: str = BOB) -> list[str]:
        return [binding.uri for binding in self.world.location.bindings(aor, self.world.engine.wall)]

    def nothing_is_left(self) -> None:
        engine = self.world.engine
        writes = engine.registrations.writes
        assert (writes.under_way, writes._held, engine._waiting, writes.idle) == (0, {}, {}, True)
        assert not self.world.location._claimed
        self.world.run(40)
        left = self.world.leftovers()
        assert (left.pop("subscriptions"), any(left.values())) == (2, False), "ours of `registered` and `unregistered`"


# --- one write --------------------------------------------------------------------------------------------------------


def test_the_200_the_table_and_the_event_come_behind_the_store() -> None:
    desk = Desk()
    ask = desk.register()
    assert (ask.statuses, desk.contacts(), desk.events) == ([], [], [])
    assert not desk.world.engine.idle
    desk.world.run(1.5)
    desk.answer(0)
    assert ask.statuses == [200]
    assert ask.final.contacts()[0].expires in (3598, 3599), "what is left when it is answered"
    assert desk.contacts() == ["sip:10.0.0.3@10.0.0.3:5060"]
    assert [name for name, _ in desk.events] == ["registered"]
    desk.nothing_is_left()


def test_a_repetition_is_absorbed_and_answered_when_the_store_has() -> None:
    desk = Desk()
    ask = desk.register()
    ask.again()
    desk.world.run(1)
    assert (ask.statuses, len(desk.writes)) == ([], 1)
    desk.answer(0)
    ask.again()
    desk.world.run()
    assert (ask.statuses, len(desk.writes), len(desk.events)) == ([200, 200], 1, 1)
    desk.nothing_is_left()


@pytest.mark.parametrize("error", [StoreError("gone"), StepError("flow.fault", "a bug of the store")])
def test_a_write_that_fails_is_a_503_and_changes_nothing(error: Exception) -> None:
    desk = Desk()
    desk.register()
    desk.answer(0)
    before, events = desk.contacts(), list(desk.events)
    for number, more in enumerate(({"expires": 0}, {"expires": 999}), start=1):
        ask = desk.register(cseq=1 + number, **more)
        desk.answer(number, error)
        assert ask.statuses == [503]
        assert int(ask.final.get(b"retry-after") or b"0") > 0
        assert (desk.contacts(), desk.events) == (before, events)
    assert desk.world.location.failures == 2 and desk.world.location.trouble
    again = desk.register(cseq=4)
    desk.answer(3)
    assert again.statuses == [200] and not desk.world.location.trouble
    desk.nothing_is_left()


def test_a_store_that_never_answers_costs_the_phone_its_time_and_nobody_else() -> None:
    desk = Desk()
    ask, other = desk.register(), desk.register(CAROL, "10.0.0.4")
    desk.world.run(AT_MOST - 0.1)
    assert ask.statuses == []
    desk.answer(1)
    assert other.statuses == [200]
    desk.world.run(0.2)
    assert (ask.statuses, desk.contacts(), desk.world.engine.counters["location.timeout"]) == ([503], [], 1)
    again = desk.register(cseq=2)
    desk.answer(2)
    assert again.statuses == [200]
    before = desk.contacts()
    desk.answer(0)
    assert (desk.contacts(), ask.statuses) == (before, [503]), "nobody listens to it any more"
    desk.nothing_is_left()


def test_a_query_does_not_wait() -> None:
    desk = Desk()
    peer = desk.world.peer("p", "10.0.0.9")
    ask = peer.ask("REGISTER", "sip:example.com", to=f"<sip:{BOB}>")
    desk.world.run()
    assert (ask.statuses, desk.writes) == ([200], [])


# --- several of one address -------------------------------------------------------------------------------------------


def test_registers_of_one_address_are_carried_out_one_after_the_other() -> None:
    desk = Desk()
    first, second = desk.register(), desk.register(host="10.0.0.4")
    elsewhere = desk.register(CAROL, "10.0.0.5")
    assert len(desk.writes) == 2, "the second waits; another address does not"
    desk.answer(1)
    assert (elsewhere.statuses, first.statuses, second.statuses) == ([200], [], [])
    desk.answer(0)
    assert (first.statuses, second.statuses) == ([200], [])
    assert len(first.final.contacts()) == 1
    desk.answer(2)
    assert second.statuses == [200]
    assert len(second.final.contacts()) == 2
    assert desk.store.contacts == {(b.aor, b.contact) for b in desk.world.location}
    desk.nothing_is_left()


@pytest.mark.parametrize("stored", [True, False])
def test_an_earlier_register_that_comes_later_is_decided_on_what_was_stored(stored: bool) -> None:
    """CSeq 2 is under way when CSeq 1 of the same Call-ID comes: out of order only if CSeq 2 is stored."""
    desk = Desk()
    second = desk.register(cseq=2, expires=600)
    first = desk.register(cseq=1, expires=300)
    desk.answer(0, None if stored else StoreError("no"))
    if stored:
        assert (second.statuses, first.statuses, len(desk.writes)) == ([200], [400], 1)
    else:
        desk.answer(1)
        assert (second.statuses, first.statuses) == ([503], [200])
    desk.nothing_is_left()


def test_a_removal_behind_a_registration_under_way_removes_it() -> None:
    desk = Desk()
    desk.register()
    removal = desk.register(cseq=2, expires=0)
    desk.answer(0)
    assert len(desk.contacts()) == 1
    desk.answer(1)
    assert (removal.statuses, desk.contacts(), desk.store.contacts) == ([200], [], set())
    assert [name for name, _ in desk.events] == ["registered", "unregistered"]
    desk.nothing_is_left()


def test_who_waits_too_long_for_his_turn_is_answered_and_nothing_is_done_for_him() -> None:
    """The first write ends just before the time of the second is over, and the third takes the turn of both."""
    desk = Desk()
    first = desk.register()
    desk.world.run(2)
    second = desk.register(host="10.0.0.4")
    desk.world.run(AT_MOST - 1.5)
    assert first.statuses == [503], "never answered"
    third = desk.register(host="10.0.0.5")
    desk.world.run(1.6 + AT_MOST - 2)
    assert (second.statuses, third.statuses) == ([503], [])
    desk.answer(len(desk.writes) - 1)
    assert third.statuses == [200]
    assert desk.contacts() == ["sip:10.0.0.5@10.0.0.5:5060"]
    desk.nothing_is_left()


def test_more_than_may_wait_are_refused_at_once() -> None:
    desk = Desk(limits=CoreLimits(location_writes=2))
    asks = [desk.register(), desk.register(host="10.0.0.4"), desk.register(CAROL, "10.0.0.5")]
    assert [ask.statuses for ask in asks] == [[], [], [503]]
    assert desk.world.engine.counters["location.full"] == 1
    desk.answer(0)
    desk.answer(1)
    assert [ask.statuses for ask in asks] == [[200], [200], [503]]
    desk.nothing_is_left()


def test_what_is_being_written_takes_room() -> None:
    desk = Desk()
    desk.world.location.max_bindings = 2
    asks = [desk.register(f"u{number}@example.com", f"10.0.0.{number}") for number in range(3)]
    assert [ask.statuses for ask in asks] == [[], [], [503]]
    desk.answer(0, StoreError("no"))
    late = desk.register("u3@example.com", "10.0.0.7")
    desk.answer(1)
    desk.answer(2)
    assert late.statuses == [200] and len(desk.world.location) == 2
    desk.nothing_is_left()


# --- what the store may have done -------------------------------------------------------------------------------------


def test_what_a_lost_answer_leaves_in_doubt_is_said_anew_with_the_next_write() -> None:
    """The store took the removal but its answer was lost: the contact stands, and stands in the store again."""
    desk = Desk()
    desk.register()
    desk.answer(0)
    removal = desk.register(cseq=2, expires=0)
    effect = desk.writes[1].effect
    assert isinstance(effect, Write)
    effect.work()
    desk.world.run(AT_MOST + 0.1)
    assert (removal.statuses, len(desk.contacts()), desk.store.contacts) == ([503], 1, set())
    desk.register(host="10.0.0.4")
    desk.answer(2)
    assert len(desk.contacts()) == 2
    assert desk.store.contacts == {(b.aor, b.contact) for b in desk.world.location}
    assert [name for name, _ in desk.events] == ["registered", "registered"], "the first one has not changed"
    desk.nothing_is_left()


def test_a_contact_that_was_refused_is_taken_out_of_the_store_with_the_next_write() -> None:
    desk = Desk()
    desk.register()
    effect = desk.writes[0].effect
    assert isinstance(effect, Write)
    effect.work()
    desk.answer(0, StoreError("the connection was lost"))
    desk.register(host="10.0.0.4")
    desk.answer(1)
    assert desk.store.contacts == {(b.aor, b.contact) for b in desk.world.location}
    assert len(desk.store.contacts) == 1


# --- time -------------------------------------------------------------------------------------------------------------


def test_expiry_waits_for_a_refresh_under_way() -> None:
    desk = Desk()
    desk.register(expires=60)
    desk.answer(0)
    desk.world.run(59)
    refresh = desk.register(cseq=2, expires=60)
    desk.world.run(3)
    assert desk.contacts() == [], "it has run out and is not rung"
    desk.answer(1)
    assert (refresh.statuses, len(desk.contacts())) == ([200], 1)
    assert [name for name, _ in desk.events] == ["registered", "registered"]
    assert len(desk.writes) == 2
    desk.nothing_is_left()


def test_a_refresh_that_fails_lets_the_binding_expire() -> None:
    desk = Desk()
    desk.register(expires=60)
    desk.answer(0)
    desk.world.run(59)
    desk.register(cseq=2, expires=60)
    desk.world.run(3)
    desk.answer(1, StoreError("no"))
    desk.world.run(0.1)
    assert [name for name, _ in desk.events] == ["registered", "unregistered"]
    desk.answer(2)
    assert desk.store.contacts == set()
    desk.nothing_is_left()


def test_a_registration_waits_for_the_removal_of_what_has_expired() -> None:
    """Or the store might forget the contact after it has learned it anew."""
    desk = Desk()
    desk.register(expires=60)
    desk.answer(0)
    desk.world.run(61)
    assert len(desk.writes) == 2 and [name for name, _ in desk.events] == ["registered", "unregistered"]
    again = desk.register(cseq=2)
    assert (again.statuses, len(desk.writes)) == ([], 2)
    desk.answer(1)
    desk.answer(2)
    assert again.statuses == [200]
    assert len(desk.store.contacts) == 1
    desk.nothing_is_left()


@pytest.mark.parametrize("how", ["fails", "never ends"])
def test_the_removal_of_what_has_expired_is_not_waited_for_for_ever(how: str) -> None:
    desk = Desk()
    desk.register(expires=60)
    desk.answer(0)
    desk.world.run(61)
    again = desk.register(cseq=2)
    if how == "fails":
        desk.answer(1, StoreError("no"))
    else:
        desk.world.run(AT_MOST)
    desk.answer(2)
    assert again.statuses == [200]
    assert desk.world.location.unwritten == 1
    desk.nothing_is_left()


# --- the end of the transaction, the flow, the server -----------------------------------------------------------------


def test_a_cancel_changes_nothing_for_a_register() -> None:
    """RFC 3261 §9.1: it has no effect on other requests than INVITE."""
    desk = Desk()
    ask = desk.register()
    cancel = ask.cancel()
    desk.world.run()
    assert cancel.final.status in (200, 481)
    assert ask.statuses == []
    desk.answer(0)
    assert (ask.statuses, len(desk.contacts())) == ([200], 1)
    desk.nothing_is_left()


def test_a_stop_waits_for_the_store_and_what_is_stored_after_the_503_stands() -> None:
    desk = Desk()
    ask = desk.register()
    engine = desk.world.engine
    engine.drain(desk.world.now)
    late = desk.register(CAROL, "10.0.0.4")
    assert (late.statuses, engine.idle) == ([503], False)
    give_up(engine, engine.faults, False, desk.world.now)
    desk.world.run()
    assert (ask.statuses, engine.idle) == ([503], False)
    desk.answer(0)
    assert (ask.statuses, len(desk.contacts()), engine.idle) == ([503], 1, True)
    assert desk.store.contacts == {(b.aor, b.contact) for b in desk.world.location}


FLOW = """
flowlang: 1
flows:
  phones:
    on: register
    do:
      - register: {max_expires: 10m, extra: {tenant: acme}}
      - log: saved
"""
SHORT = """
flowlang: 1
flows:
  phones:
    on: register
    do:
      - register: {}
        timeout: 1s
"""


def flow_desk(tmp_path: Path, text: str = FLOW) -> tuple[Desk, list[str]]:
    path = tmp_path / "register.flow.yaml"
    path.write_text(text)
    desk = Desk(load_program([path])[0])
    said: list[str] = []
    desk.world.engine.host.on_log = lambda run, effect: said.append(effect.text)
    return desk, said


@pytest.mark.parametrize("stored", [True, False])
def test_a_flow_goes_on_when_the_answer_is_out(tmp_path: Path, stored: bool) -> None:
    desk, said = flow_desk(tmp_path)
    ask = desk.register()
    assert (ask.statuses, said) == ([], [])
    desk.answer(0, None if stored else StoreError("no"))
    assert (ask.statuses, said) == ([200 if stored else 503], ["saved"])
    desk.nothing_is_left()


def test_a_reload_changes_nothing_for_a_write_under_way(tmp_path: Path) -> None:
    desk, said = flow_desk(tmp_path)
    ask = desk.register()
    path = tmp_path / "other.flow.yaml"
    path.write_text(FLOW.replace("saved", "other"))
    desk.world.engine.load(load_program([path])[0], desk.world.site)
    desk.answer(0)
    assert (ask.statuses, said) == ([200], ["saved"])
    (binding,) = desk.world.location
    assert binding.extra == {"tenant": "acme"}
    desk.nothing_is_left()


def test_a_flow_that_ends_before_the_store_answers_sends_no_second_answer(tmp_path: Path) -> None:
    desk, _ = flow_desk(tmp_path, SHORT)
    ask = desk.register()
    desk.world.run(2)
    assert (ask.statuses, len(desk.world.engine.flows.runs)) == ([], 0)
    desk.answer(0)
    assert (ask.statuses, len(desk.contacts())) == ([200], 1)
    desk.nothing_is_left()


@pytest.mark.plain("replaces a method of the core")
def test_a_bug_behind_the_store_costs_its_own_register_only() -> None:
    """A listener of `registered` raises: the next one of the address has its turn all the same."""
    desk = Desk()
    told: list[Any] = []
    desk.world.engine.faults.told = told.append
    original = desk.world.engine.registrations.announce
    strikes = iter([True, False])

    def announce(changes: Any, source_ip: str = "") -> None:
        original(changes, source_ip)
        if next(strikes, False):
            raise ZeroDivisionError

    desk.world.engine.registrations.announce = announce  # type: ignore[method-assign]
    first, second = desk.register(), desk.register(host="10.0.0.4")
    desk.answer(0)
    desk.answer(1)
    assert (first.statuses, second.statuses, len(told)) == ([200], [200], 1)
    desk.nothing_is_left()


# --- news of others ---------------------------------------------------------------------------------------------------


def binding(host: str = "10.0.0.8", cseq: int = 1, ttl: float = 600, call_id: bytes = b"other", **more: Any) -> Binding:
    wall = 1_800_000_000.0
    return Binding(
        BOB, b"sip:bob@%b" % host.encode(), wall + ttl, call_id=call_id, cseq=cseq, registered_at=wall, **more
    )


def changed(desk: Desk, *changes: Change) -> None:
    desk.world.engine.bindings_changed(changes, desk.world.now)
    desk.world.run()


def test_news_of_others_are_taken_told_and_not_written_back() -> None:
    desk = Desk()
    changed(desk, Change("added", binding()))
    assert desk.contacts() == ["sip:bob@10.0.0.8"]
    changed(desk, Change("refreshed", binding(cseq=2, ttl=900), binding()))
    changed(desk, Change("removed", binding(cseq=2)))
    assert (desk.contacts(), desk.writes) == ([], [])
    assert [name for name, _ in desk.events] == ["registered", "registered", "unregistered"]


def test_news_that_come_twice_or_late_change_nothing() -> None:
    desk = Desk()
    changed(desk, Change("added", binding(cseq=2)))
    before, events = desk.contacts(), list(desk.events)
    for stale in (
        Change("added", binding(cseq=2)),
        Change("refreshed", binding(cseq=1, ttl=30)),
        Change("removed", binding(cseq=1)),
        Change("removed", binding("10.0.0.99")),
        Change("added", binding("10.0.0.98", ttl=-1)),
    ):
        changed(desk, stale)
        assert (desk.contacts(), desk.events) == (before, events)


def test_news_of_others_expire_here_too() -> None:
    desk = Desk()
    changed(desk, Change("added", binding(ttl=60)))
    desk.world.run(61)
    assert (desk.contacts(), [name for name, _ in desk.events]) == ([], ["registered", "unregistered"])


def test_news_while_a_write_is_under_way_stand_beside_it() -> None:
    desk = Desk()
    ask = desk.register()
    changed(desk, Change("added", binding()))
    desk.answer(0)
    assert ask.statuses == [200]
    assert sorted(desk.contacts()) == ["sip:10.0.0.3@10.0.0.3:5060", "sip:bob@10.0.0.8"]
    assert len(ask.final.contacts()) == 2
    desk.nothing_is_left()


BY_HAND = Path(__file__).parents[2] / "docs" / "flows" / "push_by_hand.flow.yaml"


def test_a_phone_that_registers_at_another_node_is_a_late_branch() -> None:
    desk = Desk(load_program([BY_HAND])[0])
    callee = desk.world.peer("bob", "10.0.0.8")
    caller = desk.world.phone("alice@example.com", "10.0.0.2")
    changed(desk, Change("added", binding("10.0.0.7;pn-provider=fcm;pn-prid=t1")))
    caller.invite(BOB)
    desk.world.run(1)
    assert callee.heard == []
    changed(desk, Change("added", binding("10.0.0.8:5060", call_id=b"elsewhere")))
    desk.world.run(0.1)
    assert callee.heard == ["INVITE"]


# --- a store with bugs ------------------------------------------------------------------------------------------------


class BuggyStore(MemoryStore):
    """Its `write` raises `bug` while there is one."""

    bug: BaseException | None = None

    def write(self, changes: Sequence[Change]) -> None:
        if self.bug is not None:
            raise self.bug
        super().write(changes)


@pytest.mark.parametrize("bug", [KeyError("a bug"), SystemExit(1)])
def test_a_bug_of_the_store_is_a_503_and_what_expires_is_told_all_the_same(bug: BaseException) -> None:
    desk = Desk()
    faults: list[str] = []
    desk.world.engine.faults.told = lambda fault: faults.append(fault.where)
    store = desk.world.location.store = BuggyStore()
    assert desk.register(expires=60).statuses == [200]
    assert desk.register(CAROL, "10.0.0.4", expires=90).statuses == [200]
    store.bug = bug
    assert desk.register(cseq=2).statuses == [503]
    desk.world.run(100)
    assert [name for name, _ in desk.events] == ["registered", "registered", "unregistered", "unregistered"]
    assert (desk.contacts(), desk.contacts(CAROL), desk.world.location.unwritten) == ([], [], 2)
    assert faults == ["location"] * 3
    assert type(bug).__name__ in desk.world.location.trouble
    store.bug = None
    assert desk.register(cseq=3).statuses == [200]
    assert not desk.world.location.trouble


@pytest.mark.plain("a binding gets what its types forbid")
def test_news_that_strike_a_bug_cost_themselves_alone() -> None:
    desk = Desk()
    faults: list[str] = []
    desk.world.engine.faults.told = lambda fault: faults.append(fault.where)
    odd: Any = None
    changed(desk, Change("added", Binding(BOB, odd, odd)), Change("added", binding()))
    assert (desk.contacts(), faults) == (["sip:bob@10.0.0.8"], ["bindings"])
