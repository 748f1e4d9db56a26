"""Which Route values mean us, and which requests they put into a dialog of ours (RFC 3261 §16.4)."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from orchestrator.core.engine import Engine
from orchestrator.core.settings import CoreSettings
from orchestrator.flow.language.program import Program
from orchestrator.sip.location import Location
from orchestrator.sip.message import Request, parse_message
from orchestrator.sip.points import Hop, ListenPoint
from orchestrator.store.memory import MemoryStore
from orchestrator.store.sqlite import SqliteStore
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

OURS = b"<sip:192.0.2.1:5060;lr>"
KEYED = b"<sip:0123456789abcdef@192.0.2.1:5060;lr>"
TOKEN = b"0123456789abcdef"
NEXT = b"<sip:192.0.2.99;lr>"


@pytest.fixture
def engine() -> Engine:
    points = (ListenPoint("192.0.2.1", 5060, aliases=("198.51.100.1",)), ListenPoint("192.0.2.2", 5070))
    return Engine(CoreSettings(points=points), Location(MemoryStore()), Program())


def bye(*routes: bytes) -> Request:
    request = parse_message(
        b"\r\n".join(
            (
                b"BYE sip:bob@192.0.2.20:5062 SIP/2.0",
                b"Via: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKr",
                b"Max-Forwards: 70",
                *(b"Route: " + route for route in routes),
                b"From: <sip:alice@192.0.2.10>;tag=a",
                b"To: <sip:bob@192.0.2.1>;tag=b",
                b"Call-ID: routes",
                b"CSeq: 2 BYE",
                b"Content-Length: 0\r\n\r\n",
            )
        )
    )
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize(
    ("routes", "drop", "toward", "token"),
    [
        ((), 0, None, b""),
        ((OURS,), 1, None, b""),
        ((b"  " + OURS + b" ",), 1, None, b""),
        ((KEYED,), 1, None, TOKEN),
        ((b"  " + KEYED + b" ",), 1, None, TOKEN),
        ((b"<sip:0123456789abcdef@192.0.2.2:5070;lr>",), 1, None, TOKEN),
        ((b"<sip:0123456789abcdef@192.0.2.1:5060;lr>;x=1",), 1, None, TOKEN),
        ((b'"us" <SIP:0123456789abcdef@192.0.2.1;transport=UDP;LR=on>',), 1, None, TOKEN),
        ((b"<sip:%30123456789abcde%66@198.51.100.1:5060;lr>",), 1, None, TOKEN),
        ((b"<sip:0123:secret@192.0.2.1:5060;lr>",), 1, None, b"0123"),
        ((OURS, OURS), 2, None, b""),
        ((OURS, KEYED), 2, None, TOKEN),
        ((KEYED, OURS), 2, None, b""),
        ((KEYED, NEXT), 1, NEXT, TOKEN),
        ((KEYED + b", " + NEXT,), 1, NEXT, TOKEN),
        ((NEXT,), 0, NEXT, b""),
        ((NEXT, KEYED), 0, NEXT, b""),
        ((NEXT + b", " + KEYED,), 0, NEXT, b""),
        ((b"<sip:192.0.2.99;lr>,<sip:01@192.0.2.1:5060;lr>",), 0, NEXT, b""),
    ],
)
def test_our_entries_come_off_the_top(
    engine: Engine, routes: tuple[bytes, ...], drop: int, toward: bytes | None, token: bytes
) -> None:
    route = engine.requests.routes.route(bye(*routes))
    assert (route.drop, route.token) == (drop, token)
    assert (bytes(route.toward) if route.toward else None) == (toward.strip(b"<>") if toward else None)


@pytest.mark.parametrize("transport", [0, 1])
def test_what_we_record_is_what_we_know_again(engine: Engine, transport: int) -> None:
    point = engine.network.points[transport]
    [line] = engine.network.record_routes(point, bye(), Hop(point, "192.0.2.10", 5060), None)
    value = line.removeprefix(b"Record-Route: ")
    assert value.partition(b"@")[2] in engine.network.own_route_ends
    request = bye(value)
    route = engine.requests.routes.route(request)
    assert (route.drop, route.point) == (1, point)
    assert engine.network.passage(request, route.token) is not None


# --- whose requests pass ----------------------------------------------------------------------------------------------

BOB = "sip:bob@example.com"
VICTIM = "sip:victim@203.0.113.7"


class Stage:
    """alice has called bob; eve knows what she should not."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.alice = self.world.peer("alice", "10.0.0.2")
        self.bob = self.world.peer("bob", "10.0.0.11")
        self.eve = self.world.peer("eve", "10.0.0.66")
        self.victim = self.world.peer("victim", "203.0.113.7")

    def begin(self) -> str:
        """A call; returns its Route."""
        self.bob.register("bob@example.com")
        self.world.run()
        call = self.alice.ask("INVITE", BOB, call_id="call")
        self.world.run()
        self.bob.answer(self.bob.requests("INVITE")[0], 200)
        self.world.run()
        [route] = call.final.record_routes()
        return f"<{(route.uri or b'').decode()}>"

    def send(self, peer: Peer, method: str, uri: str, route: str, callee: bool = False, **more: str) -> Ask:
        sides = {"sender": "<sip:alice@example.com>;tag=alice", "to": f"<{BOB}>;tag=bob", "call_id": "call"}
        if callee:
            sides["sender"], sides["to"] = sides["to"], sides["sender"]
        ask = peer.ask(method, uri, f"Route: {route}", cseq=2, **sides | more)
        self.world.run()
        return ask


def test_both_sides_requests_pass() -> None:
    stage = Stage()
    route = stage.begin()
    stage.send(stage.alice, "ACK", "sip:bob@10.0.0.11", route)
    stage.send(stage.alice, "INFO", "sip:bob@10.0.0.11", route)
    stage.send(stage.bob, "INFO", "sip:alice@10.0.0.2", route, callee=True)
    assert stage.bob.heard[-2:] == ["ACK", "INFO"]
    assert stage.alice.heard[-1] == "INFO"


@pytest.mark.parametrize("change", [str.upper, lambda route: route.replace(";lr", ";lr=on;transport=udp")])
def test_a_route_that_a_peer_writes_in_its_own_way_is_ours_as_well(change: object) -> None:
    stage = Stage()
    route = stage.begin()
    stage.send(stage.alice, "INFO", "sip:bob@10.0.0.11", change(route))  # type: ignore[operator]
    assert stage.bob.heard[-1] == "INFO"


@pytest.mark.parametrize("method", ["BYE", "INFO", "INVITE", "MESSAGE", "NOTIFY"])
@pytest.mark.parametrize(
    ("route", "more"),
    [
        ("<sip:10.0.0.1:5060;lr>", {}),
        ("<sip:0123456789abcdef@10.0.0.1:5060;lr>", {}),
        ("<sip:nonsense@10.0.0.1:5060;lr>", {}),
        ("", {"call_id": "another"}),
        ("", {"sender": "<sip:eve@example.com>;tag=eve"}),
    ],
)
def test_a_to_tag_and_a_route_to_us_make_no_dialog(method: str, route: str, more: dict[str, str]) -> None:
    """Nobody has us shout at third parties: what is in no dialog of ours is refused, an ACK dropped."""
    stage = Stage()
    real = stage.begin()
    asked = stage.send(stage.eve, method, VICTIM, route or real, **more)
    assert asked.statuses == [481]
    stage.send(stage.eve, "ACK", VICTIM, route or real, **more)
    assert stage.victim.received == []
    assert stage.world.engine.counters["ack.unmatched"] == 1
    assert len(stage.eve.received) == 1


def test_whom_we_trust_needs_no_token() -> None:
    stage = Stage(World(trust=(ip_network("10.0.0.66/32"),)))
    stage.send(stage.eve, "BYE", VICTIM, "<sip:10.0.0.1:5060;lr>")
    stage.send(stage.eve, "ACK", VICTIM, "<sip:10.0.0.1:5060;lr>")
    assert stage.victim.heard == ["BYE", "ACK"]


def test_a_call_that_passes_twice_has_two_entries_and_both_sides_get_through() -> None:
    """A spiral (§6): bob's calls go to carol, through us once more."""
    world = World(trust=(ip_network("10.0.0.1/32"),))
    stage = Stage(world)
    carol = world.peer("carol", "10.0.0.12")
    carol.register("carol@example.com")
    stage.bob.register("bob@example.com", "<sip:carol@10.0.0.1>")
    world.run()
    call = stage.alice.ask("INVITE", BOB, call_id="call")
    world.run()
    [invite] = carol.requests("INVITE")
    carol.answer(invite, 200, tag="bob")
    world.run()
    entries = [f"<{(route.uri or b'').decode()}>" for route in invite.record_routes()]
    assert len(entries) == 2
    assert call.statuses == [100, 200]
    stage.send(stage.alice, "INFO", "sip:carol@10.0.0.12", ", ".join(reversed(entries)))
    assert carol.heard[-1] == "INFO"
    stage.send(carol, "INFO", "sip:alice@10.0.0.2", ", ".join(entries), callee=True)
    assert stage.alice.heard[-1] == "INFO"


# --- over a restart ---------------------------------------------------------------------------------------------------


def restarted(stage: Stage, location: Location) -> Stage:
    """Another process, another sequence of random numbers; the peers have noticed nothing."""
    world = World(seed=2)
    world.engine = Engine(world.settings, location, Program(), world.now)
    return Stage(world)


@pytest.mark.parametrize("kept", [True, False])
def test_dialogs_go_on_where_the_store_keeps_their_key(kept: bool, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "location.db") if kept else MemoryStore()
    stage = Stage(World(store=store))
    route = stage.begin()
    store.close()
    location = Location(SqliteStore(tmp_path / "location.db") if kept else MemoryStore())
    location.load(stage.world.engine.wall)
    after = restarted(stage, location)
    bye = after.send(after.alice, "BYE", "sip:bob@10.0.0.11", route)
    assert after.bob.heard == (["BYE"] if kept else [])
    assert bye.statuses == ([] if kept else [481])
    location.store.close()
