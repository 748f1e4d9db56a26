"""Bindings: which contact is the same phone, what a REGISTER may change, what the table answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator.errors import SipError, StoreError
from orchestrator.sip.binding import Binding, Change, decide, decide_removal, same_contact
from orchestrator.sip.location import Location
from orchestrator.store.memory import MemoryStore

AOR = "bob@example.com"
NOW = 1_800_000_000.0
PUSH = b";pn-provider=apns;pn-param=ABCD.app;pn-prid=token-1"


def remove_all(location: Location, aor: str, cseq: int, now: float, call_id: bytes = b"call-1") -> None:
    """What `Contact: *` does."""
    location._do(aor, decide_removal(location.bindings(aor, now), call_id, cseq))


def binding(contact: bytes = b"sip:bob@10.0.0.5", ttl: float = 60, cseq: int = 1, **more: object) -> Binding:
    call_id = more.pop("call_id", b"call-1")
    assert isinstance(call_id, bytes)
    return Binding(AOR, contact, NOW + ttl, call_id=call_id, cseq=cseq, registered_at=NOW, **more)  # type: ignore[arg-type]


def kinds(changes: Iterable[Change]) -> list[tuple[str, bytes]]:
    return [(change.kind, change.binding.contact) for change in changes]


class BrokenStore(MemoryStore):
    broken = False

    def write(self, changes: Sequence[Change]) -> None:
        if self.broken:
            raise StoreError("disk full")
        super().write(changes)

    def route_key(self, fresh: bytes) -> bytes:
        if self.broken:
            raise StoreError("disk full")
        return super().route_key(fresh)


# --- which contact is the same ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (b"sip:bob@10.0.0.5", b"sip:bob@10.0.0.5", True),
        (b"sip:bob@Phone.Example.com", b"SIP:bob@phone.example.COM", True),
        (b"sip:bob@10.0.0.5;ob", b"sip:bob@10.0.0.5", True),
        (b"sip:bob@10.0.0.5;transport=tcp", b"sip:bob@10.0.0.5", False),
        (b"sip:bob@10.0.0.5:5060", b"sip:bob@10.0.0.5", False),
        (b"sip:Bob@10.0.0.5", b"sip:bob@10.0.0.5", False),
        (b"sip:%62ob@10.0.0.5", b"sip:bob@10.0.0.5", True),
        (b"sip:bob%00@10.0.0.5", b"sip:bob@10.0.0.5", False),
        (b"sip:bob@10.0.0.5:5062" + PUSH, b"sip:bob@10.9.9.9:41000" + PUSH, True),
        (b"sip:bob@10.0.0.5" + PUSH, b"sip:bob@10.0.0.6" + PUSH.replace(b"token-1", b"token-2"), False),
        (b"sip:bob@10.0.0.5" + PUSH, b"sip:bob@10.0.0.6" + PUSH.replace(b"ABCD", b"EFGH"), False),
        (b"sip:bob@10.0.0.5;pn-provider=apns", b"sip:bob@10.0.0.6;pn-provider=apns", False),
        (b"not a uri", b"sip:bob@10.0.0.5", False),
        (b"not a uri", b"not a uri", True),
    ],
)
def test_contacts_are_compared_by_uri_then_by_push_registration(a: bytes, b: bytes, same: bool) -> None:
    assert same_contact(binding(a), binding(b)) is same
    assert same_contact(binding(b), binding(a)) is same


def test_a_device_is_known_by_its_instance_whatever_its_address() -> None:
    here = binding(b"sip:bob@10.0.0.5", instance="urn:uuid:1", reg_id=1)
    assert same_contact(here, binding(b"sip:bob@172.16.0.1:9999", instance="urn:uuid:1", reg_id=1))
    assert not same_contact(here, binding(b"sip:bob@10.0.0.5:5062", instance="urn:uuid:1", reg_id=2)), "a second flow"
    assert not same_contact(here, binding(b"sip:bob@10.0.0.5;ob", instance="urn:uuid:2", reg_id=1)), "another device"
    assert same_contact(here, binding(b"sip:bob@10.0.0.5;ob")), "no instance on one side: the URI decides"


LINPHONE = b";pn-provider=apns.dev;pn-param=ABCD.app.remote&voip;pn-prid=t0:remote&token-1:voip"


def test_a_push_token_is_of_one_phone_whatever_else_has_changed() -> None:
    """RFC 8599 §5.3: address, port, transport, user part, dialect and even the instance; but not a second flow."""
    voip = PUSH.replace(b"ABCD.app", b"ABCD.app.voip")
    phone = binding(b"sip:bob@10.0.0.5:5062" + voip, instance="urn:uuid:1")
    moved = b"sip:x7f3@[2001:db8::9]:41000;transport=tls" + LINPHONE
    for other in (binding(moved), binding(moved, instance="urn:uuid:2"), binding(moved, instance="urn:uuid:1")):
        assert same_contact(phone, other) and same_contact(other, phone)
    users = b";pn-provider=acme;pn-param=x;pn-prid=bob"
    first, second = (binding(b"sip:bob@10.0.0.5" + users, instance=name) for name in ("urn:uuid:1", "urn:uuid:2"))
    assert not same_contact(first, second), "what another service calls its phones may be a name of the user"
    flow, second = (binding(moved, instance="urn:uuid:1", reg_id=n) for n in (1, 2))
    assert not same_contact(flow, second)


def test_a_new_token_at_the_same_place_and_call_id_is_the_same_phone() -> None:
    """RFC 8599 §4.1.3: the push service may change the token. Phones without an instance keep their Call-ID."""
    here = b"sip:bob@192.168.1.10:5060"
    old = binding(here + PUSH)
    for new, same in (
        (binding(here + PUSH.replace(b"token-1", b"token-2")), True),
        (binding(here + PUSH.replace(b"token-1", b"token-2"), call_id=b"another house"), False),
        (binding(here + PUSH.replace(b"token-1", b"token-2").replace(b"ABCD", b"EFGH")), False),
        (binding(here + b";pn-provider=fcm;pn-param=ABCD.app;pn-prid=token-2"), False),
        (binding(here.replace(b"bob", b"b0b") + PUSH.replace(b"token-1", b"token-2")), False),
    ):
        assert same_contact(old, new) is same
        assert same_contact(new, old) is same


def test_a_phone_that_gives_its_push_parameters_up_keeps_its_binding() -> None:
    """RFC 8599 §4.1.2: also by removing the contact without `pn-prid`."""
    old = binding(b"sip:bob@10.0.0.5:5062" + PUSH)
    new = binding(b"sip:bob@10.0.0.5:5062", cseq=2)
    assert kinds(decide([old], [new], NOW)) == [("refreshed", new.contact), ("replaced", old.contact)]
    gone = binding(b"sip:bob@10.0.0.5:5062;pn-provider=apns;pn-param=ABCD.app", ttl=0, cseq=2)
    assert kinds(decide([old], [gone], NOW)) == [("removed", old.contact)]


def test_push_parameters_are_read_from_the_contact() -> None:
    phone = binding(b"sip:bob@10.0.0.5" + PUSH)
    assert (phone.mobile, phone.pn_provider, phone.pn_param, phone.pn_prid) == (True, "apns", "ABCD.app", "token-1")
    assert phone.push_address is not None and phone.push_address.service == "apns" and not phone.wakes_itself
    assert binding(phone.contact, woken_upstream=True).push_address is None, "somebody else's business"
    assert binding(b"sip:bob@10.0.0.5;pn-type=firebase;app-id=1;pn-tok=2").mobile, "before RFC 8599"
    assert binding(parameters=b";reg-id=1;+SIP.pnsreg").wakes_itself
    desk = binding(b"sip:pn-bob@10.0.0.5;pn-provider")
    assert (desk.mobile, desk.pn_provider, desk.pn_prid) == (False, None, None)
    assert desk.uri == "sip:pn-bob@10.0.0.5;pn-provider"


# --- RFC 3261 §10.3 ---------------------------------------------------------------------------------------------------


def test_a_refresh_with_a_higher_cseq_replaces_and_a_new_contact_is_added() -> None:
    old = binding(cseq=1)
    again, other = binding(cseq=2, ttl=120), binding(b"sip:bob@10.0.0.6", cseq=2)
    assert decide([old], [again, other], NOW) == [Change("refreshed", again, old), Change("added", other)]


def test_a_phone_that_moved_keeps_its_binding_under_its_new_contact() -> None:
    old = binding(b"sip:bob@10.0.0.5:5062" + PUSH, call_id=b"before the reboot", cseq=99)
    new = binding(b"sip:bob@10.0.0.5:41000" + PUSH, cseq=1)
    assert decide([old], [new], NOW) == [Change("refreshed", new, old), Change("replaced", old)]


def test_several_bindings_that_turn_out_to_be_one_phone_become_one() -> None:
    by_uri = binding(b"sip:bob@10.0.0.5")
    by_instance = binding(b"sip:bob@10.0.0.9", instance="urn:uuid:1")
    new = binding(b"sip:bob@10.0.0.5", cseq=2, instance="urn:uuid:1")
    assert decide([by_instance, by_uri], [new], NOW) == [
        Change("refreshed", new, by_instance),
        Change("replaced", by_instance),
        Change("replaced", by_uri),
    ]


def test_two_phones_with_the_same_private_contact_are_two() -> None:
    """RFC 5626 §6: the instance tells them apart; a phone that tells none is known by its contact."""
    home = binding(instance="urn:uuid:1", call_id=b"home")
    office = binding(instance="urn:uuid:2", call_id=b"office")
    assert decide([home], [office], NOW) == [Change("added", office)]
    again = binding(instance="urn:uuid:1", call_id=b"home", cseq=2)
    assert decide([home, office], [again], NOW) == [Change("refreshed", again, home)]
    gone = binding(instance="urn:uuid:2", call_id=b"office", cseq=2, ttl=0)
    assert decide([home, office], [gone], NOW) == [Change("removed", office)]
    plain = binding(call_id=b"other")
    assert [change.kind for change in decide([home, office], [plain], NOW)] == ["refreshed", "replaced", "replaced"]


@pytest.mark.parametrize("ttl", [60, 0])
def test_a_request_overtaken_by_a_later_one_fails_as_a_whole(ttl: float) -> None:
    late = [binding(b"sip:bob@10.0.0.77", cseq=4), binding(cseq=4, ttl=ttl)]
    with pytest.raises(SipError) as refused:
        decide([binding(cseq=5)], late, NOW)
    assert refused.value.sip_status == 400


def test_another_call_id_starts_the_count_anew() -> None:
    assert kinds(decide([binding(cseq=500)], [binding(call_id=b"rebooted", cseq=1)], NOW)) == [
        ("refreshed", b"sip:bob@10.0.0.5")
    ]


def test_the_very_same_register_again_changes_nothing() -> None:
    assert decide([binding(cseq=7)], [binding(cseq=7, ttl=3600)], NOW) == []
    with pytest.raises(SipError):
        decide([binding(cseq=7)], [binding(cseq=7, ttl=0)], NOW)


def test_expires_zero_removes_this_contact_only() -> None:
    first, second = binding(b"sip:bob@10.0.0.5"), binding(b"sip:bob@10.0.0.6")
    assert decide([first, second], [binding(b"sip:bob@10.0.0.6;ob", ttl=0, cseq=2)], NOW) == [Change("removed", second)]
    assert decide([first], [binding(b"sip:stranger@10.0.0.7", ttl=0, cseq=2)], NOW) == []


def test_a_contact_listed_twice_counts_as_written_last() -> None:
    twice = [binding(ttl=60, cseq=2), binding(ttl=90, cseq=2)]
    assert decide([], twice, NOW) == [Change("added", twice[1])]
    assert decide([], [binding(cseq=2), binding(cseq=2, ttl=0)], NOW) == []
    standing = binding(cseq=1)
    assert decide([standing], [binding(cseq=2), binding(cseq=2, ttl=0)], NOW) == [Change("removed", standing)]


def test_star_removes_all_but_not_out_of_order() -> None:
    bindings = [binding(cseq=3), binding(b"sip:bob@10.0.0.6", call_id=b"other", cseq=900)]
    assert kinds(decide_removal(bindings, b"call-1", 4)) == [("removed", b.contact) for b in bindings]
    for cseq in (3, 2):
        with pytest.raises(SipError):
            decide_removal(bindings, b"call-1", cseq)


def test_one_phone_too_many_is_refused_but_those_that_stand_may_refresh() -> None:
    standing = [binding(b"sip:bob@10.0.0.%d" % n) for n in range(3)]
    with pytest.raises(SipError) as refused:
        decide(standing, [binding(b"sip:bob@10.0.0.3")], NOW, max_contacts=3)
    assert refused.value.sip_status == 403
    assert kinds(decide(standing, [binding(b"sip:bob@10.0.0.1", cseq=2)], NOW, max_contacts=2)) == [
        ("refreshed", b"sip:bob@10.0.0.1")
    ]
    swap = [binding(b"sip:bob@10.0.0.0", ttl=0, cseq=2), binding(b"sip:bob@10.0.0.9", cseq=2)]
    assert len(decide(standing, swap, NOW, max_contacts=3)) == 2
    with pytest.raises(SipError):
        decide([], [binding(b"sip:bob@10.1.%d.%d" % divmod(n, 256)) for n in range(600)], NOW)


def test_a_phone_that_comes_back_with_more_contacts_adds_them() -> None:
    """One device, one contact before: the second and third are new ones, and count."""
    standing = [binding(b"sip:bob@10.0.0.3", instance="i"), binding(b"sip:bob@10.0.0.4")]
    asked = [binding(b"sip:bob@10.0.0.%d" % host, cseq=2, instance="i") for host in (0, 1, 2)]
    assert kinds(decide(standing, asked, NOW, max_contacts=4)) == [
        ("refreshed", b"sip:bob@10.0.0.0"),
        ("added", b"sip:bob@10.0.0.1"),
        ("added", b"sip:bob@10.0.0.2"),
        ("replaced", b"sip:bob@10.0.0.3"),
    ]
    with pytest.raises(SipError, match="Too Many Contacts"):
        decide(standing, asked, NOW, max_contacts=3)


# --- the table --------------------------------------------------------------------------------------------------------


def test_lookup_gives_live_bindings_by_q_then_newest() -> None:
    location = Location(MemoryStore())
    low = binding(b"sip:low@a", q=0.2)
    older = Binding(AOR, b"sip:older@a", NOW + 60, registered_at=NOW - 10)
    newer = Binding(AOR, b"sip:newer@a", NOW + 30, registered_at=NOW - 5)
    location.save(AOR, [low, older, newer], NOW)
    assert [b.contact for b in location.bindings(AOR, NOW)] == [b"sip:newer@a", b"sip:older@a", b"sip:low@a"]
    assert [b.contact for b in location.bindings(AOR, NOW + 30)] == [b"sip:older@a", b"sip:low@a"]
    assert location.bindings("stranger@example.com", NOW) == ()


def test_a_store_that_fails_leaves_the_table_as_it_was() -> None:
    store = BrokenStore()
    location = Location(store)
    location.save(AOR, [binding()], NOW)
    store.broken = True
    for attempt in (
        lambda: location.save(AOR, [binding(cseq=2, ttl=999)], NOW),
        lambda: remove_all(location, AOR, 2, NOW),
    ):
        with pytest.raises(StoreError) as refused:
            attempt()
        assert refused.value.sip_status == 503
        assert location.bindings(AOR, NOW) == (binding(),)
    assert location.save(AOR, [binding(cseq=1)], NOW) == [], "a retransmission needs no write"
    assert kinds(location.expire(NOW + 60)) == [("expired", b"sip:bob@10.0.0.5")]
    assert (len(location), location.unwritten) == (0, 1)


def test_expiry_follows_refreshes_and_removals() -> None:
    location = Location(MemoryStore())
    assert location.next_expiry is None
    location.save(AOR, [binding(ttl=60), binding(b"sip:bob@10.0.0.6", ttl=90)], NOW)
    assert location.next_expiry == NOW + 60
    location.save(AOR, [binding(ttl=600, cseq=2)], NOW + 50)
    assert location.next_expiry == NOW + 90
    assert location.expire(NOW + 89) == []
    assert kinds(location.expire(NOW + 90)) == [("expired", b"sip:bob@10.0.0.6")]
    remove_all(location, AOR, 3, NOW + 100)
    assert location.next_expiry is None and len(location) == 0


def test_frequent_refreshes_do_not_pile_up() -> None:
    location = Location(MemoryStore())
    for cseq in range(1, 5000):
        location.save(AOR, [binding(cseq=cseq, ttl=604_800 + cseq)], NOW)
    assert len(location._due) <= 1002
    assert location.next_expiry == NOW + 604_800 + 4999


def test_a_binding_past_its_time_is_no_obstacle_before_it_is_taken_out() -> None:
    location = Location(MemoryStore(), max_contacts=1)
    location.save(AOR, [binding(ttl=60, cseq=9)], NOW)
    changes = location.save(AOR, [binding(b"sip:bob@10.0.0.6", ttl=600, cseq=1)], NOW + 61)
    assert kinds(changes) == [("added", b"sip:bob@10.0.0.6")]
    assert kinds(location.expire(NOW + 61)) == [("expired", b"sip:bob@10.0.0.5")]
    assert [b.contact for b in location] == [b"sip:bob@10.0.0.6"]


def test_a_second_table_on_the_same_store_knows_what_the_first_was_told() -> None:
    store = MemoryStore()
    first = Location(store)
    first.save(AOR, [binding(), binding(b"sip:bob@10.0.0.6", ttl=5)], NOW)
    second = Location(store)
    assert second.load(NOW + 5) == 1
    assert second.bindings(AOR, NOW + 5) == (binding(),)
    assert second.next_expiry == NOW + 60


class TableAgainstStore(RuleBasedStateMachine):
    """Whatever phones do and however often the store fails: table, store, count and next expiry tell the same story."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.cseq = NOW, 0
        self.store = BrokenStore()
        self.location = Location(self.store, max_contacts=3)

    @rule(
        asked=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 5, 30, 600])), min_size=1, max_size=3),
        aor=st.sampled_from(["a@x", "b@x"]),
        backward=st.integers(0, 2),
        instance=st.sampled_from([None, "urn:uuid:1"]),
        broken=st.sampled_from([False, False, True]),
    )
    def register(
        self, asked: list[tuple[int, int]], aor: str, backward: int, instance: str | None, broken: bool
    ) -> None:
        self.cseq += 1
        self.store.broken = broken
        bindings = [
            Binding(
                aor,
                b"sip:u@10.0.0.%d" % host,
                self.now + ttl,
                call_id=b"c",
                cseq=max(1, self.cseq - backward),
                instance=instance,
                registered_at=self.now,
            )
            for host, ttl in asked
        ]
        before = self.location.bindings(aor, self.now)
        try:
            self.location.save(aor, bindings, self.now)
        except SipError:
            assert self.location.bindings(aor, self.now) == before
        self.store.broken = False

    @rule(seconds=st.sampled_from([1, 10, 100]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        assert all(change.binding.expires_at <= self.now for change in self.location.expire(self.now))

    @rule(aor=st.sampled_from(["a@x", "b@x"]))
    def removes_all(self, aor: str) -> None:
        self.cseq += 1
        remove_all(self.location, aor, self.cseq, self.now, b"c")
        assert self.location.bindings(aor, self.now) == ()

    @invariant()
    def agrees(self) -> None:
        rows = {(b.aor, b.key): b for b in self.location}
        assert rows == self.store._rows
        assert len(self.location) == len(rows)
        assert self.location.next_expiry == min((b.expires_at for b in rows.values()), default=None)
        for aor in ("a@x", "b@x"):
            assert len(self.location.bindings(aor, self.now)) <= 3


TestTableAgainstStore = TableAgainstStore.TestCase
TestTableAgainstStore.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# --- the key of our Record-Routes -------------------------------------------------------------------------------------


def test_the_key_is_drawn_once_and_kept_with_the_bindings() -> None:
    store = MemoryStore()
    drawn = iter([b"1" * 32, b"2" * 32])
    first = Location(store)
    assert first.route_key(lambda size: next(drawn)) == first.route_key(lambda size: next(drawn)) == b"1" * 32
    second = Location(store)
    assert second.load(1e9) == len(second) == 0, "it is no binding"
    assert second.next_expiry is None
    assert second.route_key(lambda size: next(drawn)) == b"1" * 32


def test_a_store_that_fails_costs_the_key_no_more_than_a_restart() -> None:
    location = Location(BrokenStore())
    location.store.broken = True  # type: ignore[attr-defined]
    assert location.route_key(lambda size: b"1" * size) == location.route_key(lambda size: b"2" * size) == b"1" * 32


# --- several contacts in one REGISTER ---------------------------------------------------------------------------------

OLD, NEW = b"sip:bob@10.0.0.5", b"sip:bob@172.16.0.1:9999"


def contacts_after(current: list[Binding], asked: list[Binding]) -> list[bytes]:
    """The contacts that stand afterwards."""
    table = {b.contact: b for b in current}
    for change in decide(current, asked, NOW):
        if change.stands:
            table[change.binding.contact] = change.binding
        else:
            table.pop(change.binding.contact, None)
    return sorted(table)


@pytest.mark.parametrize("order", [1, -1], ids=["new first", "old first"])
@pytest.mark.parametrize("instance", [None, "urn:uuid:1"])
@pytest.mark.parametrize("reg_id", [None, 1])
@pytest.mark.parametrize("tail", [b"", PUSH])
def test_a_phone_that_moves_and_takes_its_old_contact_out_is_registered(
    order: int, instance: str | None, reg_id: int | None, tail: bytes
) -> None:
    device: Any = {"instance": instance, "reg_id": reg_id if instance else None}
    asked = [
        binding(NEW + tail, cseq=2, **device),
        binding(OLD + tail, cseq=2, ttl=0, **device),
    ][::order]
    standing = [binding(OLD + tail, **device)]
    assert contacts_after(standing, asked) == [NEW + tail]
    moved = next(change.binding for change in decide(standing, asked, NOW) if change.stands)
    assert decide([moved], asked, NOW) == [], "the same REGISTER once more, after its transaction"


def test_a_removal_means_its_uri_and_not_what_the_phone_has_registered_since() -> None:
    device: Any = {"instance": "urn:uuid:1"}
    assert decide([binding(NEW, **device)], [binding(OLD, cseq=2, ttl=0, **device)], NOW) == []
    assert decide([binding(NEW + PUSH)], [binding(OLD + PUSH, cseq=2, ttl=0)], NOW) == []


def test_a_removal_with_reg_id_may_name_its_flow_under_another_uri() -> None:
    flow: Any = {"instance": "urn:uuid:1", "reg_id": 1}
    assert contacts_after([binding(NEW, **flow)], [binding(OLD, cseq=2, ttl=0, **flow)]) == []
    other = binding(NEW, instance="urn:uuid:1", reg_id=2)
    assert contacts_after([other], [binding(OLD, cseq=2, ttl=0, **flow)]) == [NEW]


def test_a_removal_is_not_for_another_device_at_the_same_address() -> None:
    standing = binding(OLD, instance="urn:uuid:2")
    assert contacts_after([standing], [binding(OLD, cseq=2, ttl=0, instance="urn:uuid:1")]) == [OLD]
    assert contacts_after([standing], [binding(OLD, cseq=2, ttl=0)]) == [], "one that names no device means the URI"


def test_a_removal_without_the_instance_finds_the_contact_by_uri() -> None:
    standing = binding(OLD, instance="urn:uuid:1")
    asked = [binding(NEW, cseq=2, instance="urn:uuid:1"), binding(OLD, cseq=2, ttl=0)]
    assert contacts_after([standing], asked) == [NEW]
    assert contacts_after([standing], asked[::-1]) == [NEW]


def test_two_contacts_of_one_device_stand_side_by_side_and_refresh_each_its_own() -> None:
    udp, tcp = b"sip:bob@10.0.0.5;transport=udp", b"sip:bob@10.0.0.5;transport=tcp"
    both = [binding(udp, instance="urn:uuid:1"), binding(tcp, instance="urn:uuid:1")]
    assert contacts_after([], both) == [tcp, udp]
    again = [binding(udp, cseq=2, instance="urn:uuid:1"), binding(tcp, cseq=2, instance="urn:uuid:1")]
    assert decide(both, again, NOW) == [
        Change("refreshed", again[0], both[0]),
        Change("refreshed", again[1], both[1]),
    ]
    moved = binding(NEW, cseq=2, instance="urn:uuid:1")
    assert contacts_after(both, [moved]) == [NEW]


def test_of_one_flow_or_one_push_registration_the_last_contact_stands() -> None:
    flow: Any = {"instance": "urn:uuid:1", "reg_id": 1}
    assert contacts_after([], [binding(OLD, **flow), binding(NEW, **flow)]) == [NEW]
    assert contacts_after([], [binding(OLD + PUSH), binding(NEW + PUSH)]) == [NEW + PUSH]


@pytest.mark.parametrize("order", [1, -1])
def test_one_device_moves_and_the_other_stays(order: int) -> None:
    standing = [binding(OLD, instance="urn:uuid:1"), binding(b"sip:bob@10.0.0.7", instance="urn:uuid:2")]
    asked = [
        binding(OLD, cseq=2, ttl=0, instance="urn:uuid:1"),
        binding(NEW, cseq=2, instance="urn:uuid:1"),
        binding(b"sip:bob@10.0.0.7", cseq=2, instance="urn:uuid:2"),
    ]
    assert contacts_after(standing, asked[::order]) == [b"sip:bob@10.0.0.7", NEW]


def test_one_old_binding_makes_room_for_one_new_one() -> None:
    """Several contacts of one instance in one REGISTER: without this an address outgrew its bound."""
    old, other = binding(instance="urn:uuid:1"), binding(b"sip:bob@10.0.0.9")
    asked = [binding(b"sip:bob@10.0.0.%d" % n, cseq=2, instance="urn:uuid:1") for n in (6, 7, 8)]
    with pytest.raises(SipError, match="403"):
        decide([old, other], asked, NOW, 3)
    assert kinds(decide([old, other], asked, NOW, 4))[:3] == [
        ("refreshed", b"sip:bob@10.0.0.6"),
        ("added", b"sip:bob@10.0.0.7"),
        ("added", b"sip:bob@10.0.0.8"),
    ]
