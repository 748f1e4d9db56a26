"""Topology hiding: neither side sees the hops of the other, and all requests of the dialog find their way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.flow.loader import load_program
from orchestrator.sip.message import Request, Response, build_response
from orchestrator.sip.points import ListenPoint
from orchestrator.sip.topology import Veil
from orchestrator.sip.uri import parse_uri
from orchestrator.store.memory import MemoryStore
from orchestrator.testing.peer import Ask
from orchestrator.testing.world import PROXY, World

INSIDE = "Via: SIP/2.0/UDP phone.inside.example:5060;branch=z9hG4bKphone"
P1, P2 = "<sip:p1.inside.example;lr>", "<sip:10.0.0.22;lr>"
SECRETS = (b"inside.example",)
RR_INSIDE = b"Record-Route: <sip:pbx.inside.example;lr>"


class Call:
    """alice stands behind the proxy P1, which is the peer that speaks; bob behind P2, which is at 10.0.0.22."""

    def __init__(self, hiding: bool = True, world: World | None = None, **settings: Any) -> None:
        self.store = MemoryStore()
        self.world = world or World(store=self.store, topology_hiding=hiding, **settings)
        self.alice = self.world.peer("alice", "127.0.0.11")  # P1, which is trusted
        self.bob = self.world.peer("bob", "10.0.0.3")
        self.p2 = self.world.peer("p2", "10.0.0.22")
        self.bob.register("bob@example.com")
        self.world.run()
        self.bob.received.clear()

    def invite(self) -> Ask:
        ask = self.alice.ask("INVITE", "sip:bob@example.com", INSIDE, f"Record-Route: {P1}", call_id="c")
        self.world.run()
        return ask

    def answered(self) -> tuple[Ask, Request]:
        """bob's side answers through P2, which has put itself into the route."""
        ask = self.invite()
        (invite,) = self.bob.requests("INVITE")
        data = build_response(invite, 200, "OK", b"bob", (b"Contact: " + self.bob.contact.encode(),))
        ours = b"Record-Route: " + (invite.get(b"record-route") or b"")
        self.bob.send(data.replace(ours, f"Record-Route: {P2}\r\n".encode() + ours))
        self.world.run()
        return ask, invite


def uris(message: Request | Response) -> list[str]:
    return [f"<{(route.uri or b'').decode()}>" for route in message.record_routes()]


def vias(message: Request | Response) -> list[bytes]:
    return [via.host for via in message.vias()] if isinstance(message, Request) else message.get_all(b"via")


def route_lines(routes: list[str]) -> list[str]:
    return [f"Route: {route}" for route in routes]


def test_without_it_everybody_sees_everything() -> None:
    call = Call(hiding=False)
    _, invite = call.answered()
    assert len(invite.get_all(b"via")) == 3 and uris(invite)[1] == P1


def test_the_callee_sees_us_alone() -> None:
    call = Call()
    _, invite = call.answered()
    assert len(invite.get_all(b"via")) == 1 and len(uris(invite)) == 1
    assert b"inside" not in b"".join(call.bob.raw)


def test_the_caller_gets_its_own_vias_and_routes_back_and_none_of_the_others() -> None:
    call = Call()
    ask, _ = call.answered()
    for response in ask.responses:
        assert [line.split(b";")[0] for line in response.get_all(b"via")] == [
            b"SIP/2.0/UDP 127.0.0.11:5060", b"SIP/2.0/UDP phone.inside.example:5060",
        ]  # fmt: skip
    assert uris(ask.final)[1:] == [P1] and ";hid=" in uris(ask.final)[0]
    assert b"10.0.0.22" not in b"".join(call.alice.raw)


@pytest.mark.parametrize("method", ["BYE", "INVITE", "ACK", "INFO"])
def test_requests_of_the_caller_go_on_through_the_hidden_hops(method: str) -> None:
    call = Call()
    ask, _ = call.answered()
    routes = list(reversed(uris(ask.final)))[1:]  # P1 has taken its own off
    to = (ask.final.get(b"to") or b"").decode()
    call.alice.ask(method, "sip:bob@10.0.0.3:5060", INSIDE, *route_lines(routes), to=to, call_id="c", cseq=2)
    call.world.run()
    (request,) = call.p2.requests(method)
    assert [route.uri for route in request.routes()] == [b"sip:10.0.0.22;lr"]
    assert len(request.get_all(b"via")) == 1 and b"inside" not in b"".join(call.p2.raw)
    if method != "ACK":
        call.p2.answer(request, 200, f"Record-Route: {P2}")
        call.world.run()
        last = call.alice.received[-1]
        assert isinstance(last, Response) and last.status == 200 and len(last.get_all(b"via")) == 2
        assert last.get(b"record-route") is None


@pytest.mark.parametrize("method", ["BYE", "INVITE", "ACK"])
def test_requests_of_the_callee_go_on_through_the_callers_hops(method: str) -> None:
    call = Call()
    ask, invite = call.answered()
    p1 = call.world.peer("p1", "10.0.0.21")
    call.world.on_job = lambda job: "10.0.0.21"
    routes = uris(invite)  # P2 has taken its own off
    tag = (ask.final.to_tag or b"").decode()
    call.p2.ask(
        method, "sip:alice@phone.inside.example", *route_lines(routes), "Via: SIP/2.0/UDP 10.0.0.3;branch=z9hG4bKb",
        to=f"<sip:alice@example.com>;tag={(invite.from_tag or b'').decode()}",
        sender=f"<sip:bob@example.com>;tag={tag}", call_id="c", cseq=7,
    )  # fmt: skip
    call.world.run()
    (request,) = p1.requests(method)
    assert [route.uri for route in request.routes()] == [b"sip:p1.inside.example;lr"]
    assert len(request.get_all(b"via")) == 1 and b"10.0.0.3" not in b"".join(request.get_all(b"via"))


def test_a_dialog_outlives_our_restart_and_a_change_of_the_configuration() -> None:
    call = Call()
    ask, _ = call.answered()
    routes = list(reversed(uris(ask.final)))[1:]
    later = World(store=call.store, topology_hiding=False, seed=2)
    alice, p2 = later.peer("alice", "127.0.0.11"), later.peer("p2", "10.0.0.22")
    to = (ask.final.get(b"to") or b"").decode()
    alice.ask("BYE", "sip:bob@10.0.0.3:5060", INSIDE, *route_lines(routes), to=to, call_id="c", cseq=2)
    later.run()
    (bye,) = p2.requests("BYE")
    assert len(bye.get_all(b"via")) == 1 and [route.uri for route in bye.routes()] == [b"sip:10.0.0.22;lr"]


def test_a_cancel_reaches_the_callee_and_shows_nothing() -> None:
    call = Call()
    ask = call.invite()
    (invite,) = call.bob.requests("INVITE")
    call.bob.answer(invite, 180)
    call.world.run()
    ask.cancel()
    call.world.run()
    (cancel,) = call.bob.requests("CANCEL")
    assert cancel.via.branch == invite.via.branch and b"inside" not in b"".join(call.bob.raw)
    assert ask.statuses[-1] == 487


def test_a_failure_and_a_late_2xx_carry_the_callers_vias() -> None:
    call = Call()
    ask, invite = call.answered()
    call.bob.answer(invite, 200)
    call.world.run(1.0)
    assert len(ask.responses[-1].get_all(b"via")) == 2
    other = call.alice.ask("MESSAGE", "sip:bob@example.com", INSIDE, call_id="m")
    call.world.run()
    (message,) = call.bob.requests("MESSAGE")
    assert len(message.get_all(b"via")) == 1
    call.bob.answer(message, 486)
    call.world.run()
    assert other.statuses == [486] and len(other.final.get_all(b"via")) == 2


def test_one_gateway_may_be_kept_from_seeing_inside(tmp_path: Path) -> None:
    flow = tmp_path / "out.flow.yaml"
    flow.write_text(
        "flowlang: 1\ngateways:\n  telco: {uri: 'sip:10.0.0.50'}\n  pbx: {uri: 'sip:10.0.0.51'}\n"
        "flows:\n  out:\n    on: invite\n    when: call.target.user == 'out'\n    do: [relay: {gateways: telco}]\n"
        "  pbx:\n    on: invite\n    when: call.target.user == 'pbx'\n    do: [relay: {gateways: pbx}]\n"
    )
    program, _ = load_program([flow])
    program.resources.gateways["telco"]["topology_hiding"] = "on"  # type: ignore[index]
    world = World(program)
    telco, pbx, alice = (
        world.peer("telco", "10.0.0.50"),
        world.peer("pbx", "10.0.0.51"),
        world.peer("alice", "127.0.0.9"),
    )
    for user in ("out", "pbx"):
        alice.ask("INVITE", f"sip:{user}@example.com", INSIDE, call_id=user)
    world.run()
    assert len(telco.requests("INVITE")[0].get_all(b"via")) == 1
    assert len(pbx.requests("INVITE")[0].get_all(b"via")) == 3


def test_calls_of_a_gateway_with_a_host_name_are_hidden_from_it(tmp_path: Path) -> None:
    flow = tmp_path / "in.flow.yaml"
    flow.write_text(
        "flowlang: 1\ngateways: {telco: {uri: 'sip:telco.example'}}\n"
        "flows: {out: {on: invite, when: call.target.user == 'out', do: [relay: {gateways: telco}]}}\n"
    )
    program, _ = load_program([flow])
    program.resources.gateways["telco"]["topology_hiding"] = "on"  # type: ignore[index]
    world = World(program)
    world.on_job = lambda job: "10.0.0.50"
    bob, telco, alice = (
        world.peer("bob", "10.0.0.3"),
        world.peer("telco", "10.0.0.50"),
        world.peer("alice", "127.0.0.9"),
    )
    bob.register("bob@example.com")
    alice.ask("INVITE", "sip:out@example.com", INSIDE)
    world.run()
    ask = telco.ask("INVITE", "sip:bob@example.com", INSIDE)
    world.run()
    (invite,) = bob.requests("INVITE")
    bob.send(build_response(invite, 200, "OK", b"bob", (f"Contact: {bob.contact}".encode(), RR_INSIDE)))
    world.run()
    assert len(telco.requests("INVITE")[0].get_all(b"via")) == 1
    assert len(invite.get_all(b"via")) == 1
    assert b"pbx.inside" not in b"".join(telco.raw) and ask.statuses[-1] == 200


def test_a_sips_dialog_is_hidden_and_goes_on() -> None:
    world = World(points=(ListenPoint(*PROXY), ListenPoint("10.0.0.1", 5061, "tls")), topology_hiding=True)
    alice, bob = (
        world.peer("alice", "127.0.0.11", 5061, "tls"),
        world.peer("bob", "10.0.0.3", 5061, "tls"),
    )
    p1, p2 = "<sips:p1.inside.example;lr>", "<sips:10.0.0.22;lr>"
    proxy = world.peer("p2", "10.0.0.22", 5061, "tls")
    ask = alice.ask("INVITE", "sips:bob@10.0.0.3", INSIDE, f"Record-Route: {p1}", call_id="c")
    world.run()
    (invite,) = bob.requests("INVITE")
    data = build_response(invite, 200, "OK", b"bob", (b"Contact: <sips:bob@10.0.0.3>",))
    ours = b"Record-Route: " + (invite.get(b"record-route") or b"")
    bob.send(data.replace(ours, f"Record-Route: {p2}\r\n".encode() + ours))
    world.run()
    assert b"inside" not in b"".join(bob.raw) and b"10.0.0.22" not in b"".join(alice.raw)
    assert uris(ask.final)[1:] == [p1]
    to = (ask.final.get(b"to") or b"").decode()
    routes = list(reversed(uris(ask.final)))[1:]
    alice.ask("BYE", "sips:bob@10.0.0.3", INSIDE, *route_lines(routes), to=to, call_id="c", cseq=2)
    world.run()
    (bye,) = proxy.requests("BYE")
    assert [route.uri for route in bye.routes()] == [b"sips:10.0.0.22;lr"]


@pytest.mark.parametrize("junk", ["<sip:10.0.0.22;lr>,,<sip:10.0.0.23;lr>", ",", '<sip:10.0.0.22>,"'])
def test_routes_that_cannot_be_read_are_left_out_of_an_answer(junk: str) -> None:
    call = Call()
    ask = call.invite()
    (invite,) = call.bob.requests("INVITE")
    ours = (invite.get(b"record-route") or b"").decode()
    call.bob.answer(invite, 200, f"Record-Route: {junk}", f"Record-Route: {ours}")
    call.world.run()
    assert ask.statuses[-1] == 200 and uris(ask.final)[1:] == [P1]
    assert b"10.0.0.22" not in b"".join(call.alice.raw)


def test_a_loop_through_ourselves_is_still_found(tmp_path: Path) -> None:
    flow = tmp_path / "loop.flow.yaml"
    flow.write_text("flowlang: 1\nflows: {l: {on: invite, do: [relay: {to: 'sip:bob@example.com:5060'}]}}\n")
    world = World(load_program([flow])[0], topology_hiding=True)
    alice = world.peer("alice", "127.0.0.9")
    world.on_job = lambda job: "10.0.0.1"
    ask = alice.ask("INVITE", "sip:bob@example.com")
    world.run(40.0)
    assert ask.statuses[-1] >= 400 and len(world.sent) < 40


# --- the parameter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("routes", [(), ("<sip:a;lr>",), (P1, P2, '<sip:user@[2001:db8::1]:5070;lr;x="y">')])
def test_routes_come_back_for_their_token_only(routes: tuple[str, ...]) -> None:
    veil, written = Veil(b"k" * 32), tuple(route.encode() for route in routes)
    value = veil.hide(b"0123", written)
    assert veil.show(b"0123", value) == written
    assert parse_uri(b"sip:x@y;lr;hid=" + value).params[b"hid"] == value
    assert veil.show(b"0124", value) is None and Veil(b"j" * 32).show(b"0123", value) is None
    for at in range(0, len(value), 5):
        forged = value[:at] + (b"A" if value[at : at + 1] != b"A" else b"B") + value[at + 1 :]
        assert veil.show(b"0123", forged) in (None, written), "the last digit has bits that say nothing"
    for junk in (b"", b"A", b"%%%", b"A" * 20_000, "ä".encode()):
        assert veil.show(b"0123", junk) is None
    assert b"sip" not in value


def test_a_stranger_cannot_make_us_a_relay_with_it() -> None:
    call = Call()
    ask, _ = call.answered()
    routes = list(reversed(uris(ask.final)))[1:]
    thief = call.world.peer("thief", "203.0.113.9")
    call.p2.received.clear()
    for to in ("<sip:x@y>", "<sip:x@y>;tag=1"):
        thief.ask("MESSAGE", "sip:bob@10.0.0.3", *route_lines(routes), to=to, call_id="other")
    call.world.run()
    assert call.p2.received == [] and set(thief.heard) <= {"403", "481"}
