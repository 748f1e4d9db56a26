"""Memory ends where the configuration says, whoever sends: answered transactions, bindings, large messages."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from orchestrator.core.settings import CoreLimits
from orchestrator.sip.admission import source_name
from orchestrator.sip.location import Location
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.peer import Ask
from orchestrator.testing.world import World

BOB = "sip:bob@example.com"


def stage(**limits: int) -> World:
    return World(trust=(ip_network("10.0.0.0/24"),), limits=CoreLimits(**limits))


def do(world: World, ask: Ask) -> Ask:
    world.run()
    return ask


# --- answered transactions --------------------------------------------------------------------------------------------


def test_answered_transactions_are_counted_and_refused_beyond_their_limit() -> None:
    """A REGISTER without contacts is answered at once and kept for 32 s: it must not be free."""
    world = stage(lingering=50)
    peer = world.peer("p", "192.0.2.1")
    asks = [do(world, peer.ask("REGISTER", "sip:example.com", call_id=f"r{n}")) for n in range(200)]
    assert [ask.final.status for ask in asks[:50]] == [200] * 50
    assert {ask.final.status for ask in asks[50:]} == {503}
    assert all(ask.final.get(b"retry-after") for ask in asks[50:])
    assert len(world.engine.layer) == 50
    world.run(33.0)
    assert do(world, peer.ask("REGISTER", "sip:example.com", call_id="later")).statuses == [200]


def test_a_call_that_rings_gets_its_answer_and_its_bye_when_the_limit_is_reached() -> None:
    world = stage(lingering=40)
    alice, bob, flood = world.peer("alice", "10.0.0.2"), world.peer("bob", "10.0.0.3"), world.peer("f", "192.0.2.1")
    do(world, bob.register("bob@example.com"))
    call = do(world, alice.ask("INVITE", BOB, call_id="c"))
    for number in range(200):
        do(world, flood.ask("REGISTER", "sip:example.com", call_id=f"r{number}"))
    assert do(world, flood.ask("REGISTER", "sip:example.com", call_id="x")).statuses == [503]
    bob.answer(bob.requests("INVITE")[0], 200)
    world.run()
    assert call.statuses[-1] == 200
    answer = call.responses[-1]
    route = "Route: " + (answer.get(b"record-route") or b"").decode()
    to = (answer.get(b"to") or b"").decode()
    bye = do(world, alice.ask("BYE", "sip:bob@10.0.0.3:5060", route, to=to, call_id="c", cseq=2))
    bob.answer(bob.requests("BYE")[0], 200)
    world.run()
    assert bye.statuses[-1] == 200


def test_requests_inside_dialogs_are_refused_a_quarter_beyond_the_limits_and_served_again_later() -> None:
    """8 + 40 transactions, and a quarter more: who has a call must not fill the memory with it either."""
    world = stage(transactions=8, lingering=40)
    alice, bob = world.peer("alice", "10.0.0.2"), world.peer("bob", "10.0.0.3")
    do(world, bob.register("bob@example.com"))
    call = do(world, alice.ask("INVITE", BOB, call_id="c"))
    bob.answer(bob.requests("INVITE")[0], 200)
    world.run()
    answer = call.responses[-1]
    route = "Route: " + (answer.get(b"record-route") or b"").decode()
    to = (answer.get(b"to") or b"").decode()

    def inside(method: str, number: int) -> Ask:
        return do(world, alice.ask(method, "sip:bob@10.0.0.3:5060", route, to=to, call_id="c", cseq=number))

    asks = [inside("INFO", number) for number in range(2, 60)]
    refused = [ask for ask in asks if ask.statuses]
    assert {ask.final.status for ask in refused} == {503} and len(bob.requests("INFO")) == 58 - len(refused)
    assert all(ask.final.get(b"retry-after") for ask in refused)
    assert 60 <= len(world.engine.layer) <= 61, "each one that passes takes two"
    assert inside("BYE", 70).statuses == [503], "it may be repeated: nobody is told two things"
    world.run(70.0)
    assert len(world.engine.layer) == 0
    bye = inside("BYE", 71)
    bob.answer(bob.requests("BYE")[0], 200)
    world.run()
    assert bye.statuses[-1] == 200


def test_few_large_messages_count_as_much_as_many_small_ones() -> None:
    world = stage(octets=1_000_000)
    peer = world.peer("p", "192.0.2.1")
    large = ["X-Large: " + "x" * 7_000] * 7
    asks = [do(world, peer.ask("REGISTER", "sip:example.com", *large, call_id=f"r{n}")) for n in range(60)]
    statuses = [ask.final.status for ask in asks]
    assert statuses.count(200) == 21 and statuses[-1] == 503
    world.run(33.0)
    assert world.engine.layer.octets == 0


# --- bindings ---------------------------------------------------------------------------------------------------------


def bound(world: World, bindings: int, from_source: int) -> World:
    world.location.max_bindings, world.location.max_from_source = bindings, from_source
    return world


def test_one_source_registers_its_part_and_gets_403_beyond() -> None:
    world = bound(stage(), 1_000, 5)
    one, other = world.peer("one", "192.0.2.1"), world.peer("other", "192.0.2.2")
    answers = [do(world, one.register(f"u{n}@example.com")).final.status for n in range(8)]
    assert answers == [200] * 5 + [403] * 3
    assert do(world, other.register("v@example.com")).statuses == [200]
    assert do(world, one.register("u0@example.com", cseq=2)).statuses == [200], "who is registered stays so"
    assert do(world, one.register("u0@example.com", cseq=3, expires=0)).statuses == [200]
    assert do(world, one.register("u7@example.com", cseq=4)).statuses == [200], "room again"
    assert world.location.refused == {"source": 3}


def test_a_full_table_refuses_new_phones_with_503_and_keeps_those_it_has() -> None:
    world = bound(stage(), 3, 1_000)
    peers = [world.peer(f"p{n}", f"192.0.2.{n}") for n in range(1, 6)]
    asks = [do(world, peer.register(f"u{n}@example.com")) for n, peer in enumerate(peers)]
    assert [ask.final.status for ask in asks] == [200, 200, 200, 503, 503]
    assert asks[-1].final.get(b"retry-after") == b"5"
    assert do(world, peers[0].register("u0@example.com", cseq=2)).statuses == [200]
    assert len(world.location) == 3


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%3", "fe80::/64"),
        ("proxy.example", "proxy.example"),
    ],
)
def test_an_ipv6_network_is_one_source(address: str, source: str) -> None:
    assert source_name(address) == source


def test_the_parts_of_the_sources_are_known_after_a_restart() -> None:
    store = MemoryStore()
    world = World(store=store)
    peer = world.peer("p", "192.0.2.1")
    for number in range(3):
        do(world, peer.register(f"u{number}@example.com"))
    again = World(store=store)
    again.location.load(again.engine.wall)
    assert again.location.max_from_source == Location(store).max_from_source
    again.location.max_from_source = 3
    assert do(again, again.peer("p", "192.0.2.1").register("u9@example.com")).statuses == [403]


@pytest.mark.parametrize("where", ["contact", "path", "call-id"])
def test_a_contact_that_wants_too_much_kept_with_it_is_refused(where: str) -> None:
    world = stage()
    peer = world.peer("p", "192.0.2.1")
    text = "x" * 5_000
    contact = f"Contact: <sip:u@192.0.2.1;x={text if where == 'contact' else 'y'}>"
    headers = (contact, f"Path: <sip:{text}@10.0.0.9;lr>") if where == "path" else (contact,)
    call_id = text if where == "call-id" else "r"
    asked = do(world, peer.ask("REGISTER", "sip:u@example.com", *headers, call_id=call_id))
    assert asked.statuses == [400]
    assert len(world.location) == 0
