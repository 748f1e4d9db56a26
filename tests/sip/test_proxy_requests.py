"""Which requests are served, which are refused and how cheaply, and where those inside a dialog go (RFC 3261 §8.2,
§16.3, §16.4)."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from scene import BOB, Scene

from orchestrator.core.settings import CoreLimits
from orchestrator.sip.message import parse_message
from orchestrator.testing.peer import Ask
from orchestrator.testing.world import PROXY

US = "sip:10.0.0.1:5060"
TRUSTED: dict[str, Any] = {"trust": (ip_network("10.0.0.0/24"),)}


def out(scene: Scene) -> list[tuple[tuple[str, int], bytes]]:
    """What the proxy has sent: (to, octets)."""
    return [(target, data) for _, source, target, data in scene.world.sent if source == PROXY]


# --- refused without a transaction (§8.2.7, S11) ----------------------------------------------------------------------

REFUSED: list[tuple[int, str, str, list[str], dict[str, Any]]] = [
    (483, "INVITE", BOB, [], {"max_forwards": 0}),
    (420, "INVITE", BOB, ["Proxy-Require: foo", "Proxy-Require: bar, baz"], {}),
    (416, "INVITE", "http://example.com/", [], {"to": f"<{BOB}>"}),
    (416, "OPTIONS", "nobodyknows:bob@example.com", [], {"to": f"<{BOB}>"}),
    (403, "INVITE", "sip:+4990012345@gateway.example.net", [], {}),
    (403, "INVITE", "tel:+4990012345", [], {}),
    (403, "REGISTER", "sip:elsewhere.example.net", ["Contact: <sip:x@10.0.0.2>"], {}),
    (403, "INVITE", BOB, ["Route: <sip:203.0.113.7;lr>"], {}),
    (403, "INVITE", BOB, [f"Route: <{US};lr>, <sip:203.0.113.7;lr>"], {}),
    (403, "BYE", "sip:victim@203.0.113.7", [], {"to": f"<{BOB}>;tag=x"}),
    (403, "INVITE", "sip:victim@203.0.113.7", [], {"to": f"<{BOB}>;tag=x"}),
    (481, "BYE", "sip:victim@203.0.113.7", [f"Route: <{US};lr>"], {"to": f"<{BOB}>;tag=x"}),
    (481, "INVITE", "sip:victim@203.0.113.7", [f"Route: <sip:0123456789abcdef@{US[4:]};lr>"], {"to": f"<{BOB}>;tag=x"}),
    (481, "MESSAGE", BOB, [f"Route: <{US};lr>, <sip:203.0.113.7;lr>"], {"to": f"<{BOB}>;tag=x"}),
    (403, "MESSAGE", BOB, [], {}),
    (403, "SUBSCRIBE", BOB, ["Event: presence"], {}),
    (403, "NOTIFY", BOB, ["Event: presence"], {}),
    (403, "FOO", BOB, [], {}),
    (480, "INVITE", "sip:nobody@example.com", [], {}),
    (404, "REGISTER", "sip:example.com", ["Contact: <sip:x@10.0.0.2>"], {"to": "<sip:bob@elsewhere.example.net>"}),
    (400, "REGISTER", "sip:example.com", ["Contact: <sip:x@10.0.0.2>"], {"to": "<tel:+49301234>"}),
    (481, "BYE", US, [], {"to": f"<{BOB}>;tag=x"}),
    (481, "BYE", US, [f"Route: <{US};lr>"], {"to": f"<{BOB}>;tag=x"}),
    (481, "CANCEL", BOB, [], {}),
    (200, "OPTIONS", US, [], {}),
    (400, "INVITE", BOB, ["Route: <nonsense"], {}),
    (400, "INVITE", BOB, ["Call-ID: second"], {}),
]


def refusal_id(value: object) -> str | None:
    return value if isinstance(value, str) else None


@pytest.mark.parametrize(("status", "method", "uri", "headers", "more"), REFUSED, ids=refusal_id)
def test_a_refusal_is_one_datagram_and_leaves_nothing(
    status: int, method: str, uri: str, headers: list[str], more: dict[str, Any]
) -> None:
    scene = Scene()
    ask = scene.do(scene.alice.ask(method, uri, *headers, **more))
    assert ask.statuses == [status]
    scene.run(64.0)
    [(target, octets)] = out(scene)
    assert target == scene.alice.address
    assert len(octets) <= 1.5 * len(ask.octets), "nobody gains by asking in another's name"
    assert not any(scene.world.leftovers().values())
    assert scene.world.jobs == []
    assert ask.final.to.tag
    ask.again()
    scene.run()
    assert ask.responses[1].to.tag == ask.responses[0].to.tag, "a repeated request gets the same dialog"


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_no_transaction_remains_of_a_flood(method: str) -> None:
    scene = Scene(0)
    for number in range(500):
        scene.alice.ask(method, f"sip:{number}@elsewhere.example.net")
    scene.run()
    assert len(out(scene)) == 500
    assert len(scene.world.engine.layer) == len(scene.world.engine.timers) == 0


def test_the_extensions_we_do_not_know_are_named() -> None:
    scene = Scene()
    ask = scene.call("Proxy-Require: foo", "Proxy-Require: bar, baz")
    assert ask.final.get(b"unsupported") == b"foo, bar, baz"
    assert scene.phones[0].heard == []


def test_options_to_us_tells_what_we_do() -> None:
    scene = Scene()
    answer = scene.do(scene.alice.ask("OPTIONS", "sip:example.com")).final
    assert b"INVITE" in answer.tokens(b"allow")
    assert b"REGISTER" in answer.tokens(b"allow")


def test_an_ack_is_never_answered() -> None:
    scene = Scene()
    for uri, headers, more in (
        (BOB, [], {}),
        (BOB, [], {"to": f"<{BOB}>;tag=x"}),
        (US, [f"Route: <{US};lr>"], {"to": f"<{BOB}>;tag=x"}),
        ("sip:victim@203.0.113.7", [], {"to": f"<{BOB}>;tag=x"}),
        ("sip:victim@203.0.113.7", [f"Route: <{US};lr>"], {"to": f"<{BOB}>;tag=x", "max_forwards": 0}),
        ("sip:victim@203.0.113.7", [f"Route: <{US};lr>"], {"to": f"<{BOB}>;tag=x"}),
        (BOB, ["Route: <nonsense"], {}),
        (BOB, ["Proxy-Require: x"], {}),
        ("http://example.com", [], {}),
    ):  # type: tuple[str, list[str], dict[str, Any]]
        scene.alice.ask("ACK", uri, *headers, **more)
    scene.run()
    assert out(scene) == []
    counters = scene.world.engine.counters
    assert counters["ack.unmatched"] + counters["ack.malformed"] == 9


def test_the_ack_to_a_stateless_refusal_ends_here_even_from_a_friend() -> None:
    """It has a To tag and comes from whom we trust, and its request URI is in our domain: it must not go round in
    circles."""
    scene = Scene(0, **TRUSTED)
    call = scene.call()
    assert call.statuses == [480]
    scene.do(call.acknowledge())
    assert len(out(scene)) == 1
    assert scene.world.jobs == []


# --- when we are stopping, or full ------------------------------------------------------------------------------------


def ongoing(scene: Scene) -> Ask:
    call = scene.call()
    scene.answer(scene.phones[0], 200)
    return call


def refuses_new_but_serves_what_is_under_way(scene: Scene, call: Ask) -> None:
    for method, uri in (("INVITE", BOB), ("REGISTER", "sip:example.com")):
        refused = scene.do(scene.alice.ask(method, uri))
        assert refused.statuses == [503]
        assert int(refused.final.get(b"retry-after") or b"0") > 0
    bye = hang_up(scene, call)
    assert scene.phones[0].heard[-1] == "BYE"
    scene.phones[0].answer(scene.phones[0].requests()[-1], 200)
    scene.run()
    assert bye.statuses == [200]


def hang_up(scene: Scene, call: Ask) -> Ask:
    return scene.do(in_dialog(scene, call, "BYE"))


def in_dialog(scene: Scene, call: Ask, method: str, cseq: int = 2) -> Ask:
    answer = call.final
    routes = [f"Route: <{(route.uri or b'').decode()}>" for route in reversed(answer.record_routes())]
    target, to = (answer.contacts()[0].uri or b"").decode(), (answer.get(b"to") or b"").decode()
    return scene.alice.ask(method, target, *routes, to=to, call_id=answer.call_id.decode(), cseq=cseq)


def test_a_stopping_proxy_takes_no_new_calls() -> None:
    scene = Scene()
    call = ongoing(scene)
    scene.world.engine.drain(scene.world.now)
    refuses_new_but_serves_what_is_under_way(scene, call)
    assert scene.world.engine.idle


def test_a_full_proxy_takes_no_new_calls() -> None:
    scene = Scene(limits=CoreLimits(transactions=3))
    call = ongoing(scene)
    waiting = [scene.call() for _ in range(3)]
    assert [ask.statuses for ask in waiting] == [[100]] * 3
    assert not scene.world.engine.idle
    refuses_new_but_serves_what_is_under_way(scene, call)
    cancel = scene.do(waiting[0].cancel())
    assert (cancel.statuses, waiting[0].statuses) == ([200], [100, 487])
    assert scene.call().statuses == [100], "one has gone"


# --- malformed --------------------------------------------------------------------------------------------------------


def octets_of(scene: Scene, *headers: str, **more: Any) -> bytes:
    return scene.alice.ask("INVITE", BOB, *headers, send=False, **more).octets


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"CSeq: 1 INVITE", b"CSeq: one INVITE", 400),
        (b"CSeq: 1 INVITE", b"CSeq: 1 BYE", 400),
        (b"CSeq: 1 INVITE\r\n", b"", 400),
        (b"From: ", b"From: <<", 400),
        (b"To: ", b"X-To: ", 400),
        (b"Content-Length: 0", b"Content-Length: -1", 400),
        (b"Content-Length: 0", b"Content-Length: 9", 400),
        (b"Max-Forwards: 70", b"Max-Forwards: 256", 400),
        (b"Max-Forwards: 70", b"no colon", 400),
        (b" SIP/2.0\r\n", b" SIP/3.0\r\n", 505),
        (b"example.com SIP", b"example.com:99999 SIP", 400),
        (b"sip:bob@example.com SIP", b"sip:bob@example.com;a=b c SIP", 400),
        (b"Max-Forwards: 70", b"X: " + b"x" * 9000, 400),
        (b"Content-Length: 0", b"\r\n".join([b"X: x"] * 200), 400),
    ],
)
def test_a_malformed_request_is_answered_as_far_as_it_can_be_read(old: bytes, new: bytes, status: int) -> None:
    scene = Scene()
    data = octets_of(scene)
    assert old in data
    scene.world.deliver(data.replace(old, new, 1), ("10.0.0.99", 5060), PROXY)
    scene.run(40.0)
    [(target, octets)] = out(scene)
    assert target == ("10.0.0.99", 5060)
    assert octets.startswith(b"SIP/2.0 %d " % status)
    assert b"Via: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bKalice1;received=10.0.0.99" in octets
    assert b"Call-ID: alice2" in octets
    assert scene.world.engine.counters["malformed"] == 1
    assert len(scene.world.engine.layer) == 0


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00\x01\x02",
        b"GET / HTTP/1.0\r\n\r\n",
        b"SIP/2.0 2000 Far Too Much\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: \r\n\r\n",
        b"INVITE",
        b"INVITE sip:bob@example.com SIP/2.0",
        b"INVITE sip:bob@example.com SIP/2.0\r\nTo: x\r\n\r\n",
        b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:99999\r\n\r\n",
        b"ACK sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK1\r\nCSeq: x\r\n\r\n",
    ],
)
def test_noise_is_counted_and_answered_with_silence(noise: bytes) -> None:
    scene = Scene()
    scene.alice.send(noise)
    scene.run()
    assert out(scene) == []
    assert scene.world.engine.counters == {"malformed": 1}


@pytest.mark.parametrize("keepalive", [b"", b"\0", b"\r\n", b"\r\n\r\n", b"\0\0\0\0"])
def test_a_keepalive_is_no_mistake(keepalive: bytes) -> None:
    scene = Scene()
    scene.alice.send(keepalive)
    scene.run()
    assert out(scene) == []
    assert scene.world.engine.counters == {"keepalive": 1}


def test_a_response_that_answers_nothing_is_dropped() -> None:
    """RFC 6026 §7.3; forwarding it after its Via would let anybody send through us (S15)."""
    scene = Scene()
    scene.call()
    genuine = scene.answer(scene.phones[0], 180)
    branch = scene.phones[0].requests()[0].via.branch or b""
    scene.world.sent.clear()
    for data in (
        genuine.replace(branch, b"z9hG4bK0" + b"0" * 18),
        genuine.replace(b"1 INVITE", b"1 OPTIONS"),
        genuine.replace(b";branch=" + branch, b""),
    ):
        scene.phones[0].send(data)
    scene.run()
    assert out(scene) == []
    assert scene.world.engine.counters["response.unmatched"] == 3


def test_every_forwarded_copy_has_a_branch_nobody_can_guess() -> None:
    scene = Scene(10)
    for _ in range(20):
        scene.call()
    branches = {request.via.branch for phone in scene.phones for request in phone.requests()}
    assert len(branches) == 200
    assert all(len(branch or b"") == len("z9hG4bK") + 18 for branch in branches)


# --- where answers go (§18.2, RFC 3581) -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("via", "port"),
    [
        ("10.0.0.2:5060", 5060),
        ("10.0.0.2", 5060),
        ("10.0.0.2:5070", 5070),
        ("192.168.1.9:5070", 5070),
        ("phone.invalid", 5060),
        ("10.0.0.2:5070;rport", 40000),
        ("192.168.1.9:5070;rport", 40000),
        ("255.255.255.255", 5060),
        ("203.0.113.7;maddr=203.0.113.8", 5060),
        ("203.0.113.7;received=203.0.113.8", 5060),
    ],
)
def test_an_answer_goes_to_the_address_the_request_came_from(via: str, port: int) -> None:
    """Never to an address that only stands in it: or we could be made to shout at strangers (S16)."""
    scene = Scene()
    data = octets_of(scene).replace(b"10.0.0.2:5060;branch", via.encode() + b";branch", 1)
    scene.world.deliver(data, ("10.0.0.2", 40000), PROXY)
    scene.run()
    assert out(scene)[0][0] == ("10.0.0.2", port)
    trying = parse_message(out(scene)[0][1])
    assert trying.via.received == (None if via.startswith("10.0.0.2") and "rport" not in via else b"10.0.0.2")
    assert trying.via.rport == (40000 if "rport" in via else None)


# --- inside a dialog (§16.4, §16.12) ----------------------------------------------------------------------------------


def test_requests_of_a_dialog_pass_in_both_directions() -> None:
    scene = Scene()
    phone = scene.phones[0]
    call = scene.call()
    scene.answer(phone, 200)
    in_dialog(scene, call, "ACK", cseq=1)
    reinvite = scene.do(in_dialog(scene, call, "INVITE"))
    assert phone.heard == ["INVITE", "ACK", "INVITE"]
    assert reinvite.statuses == [100]
    received = phone.requests()[-1]
    assert received.routes() == []
    assert received.uri == phone.contact.strip("<>").encode()
    assert received.max_forwards == 69
    assert len(received.vias()) == 2
    phone.answer(received, 200)
    scene.run()
    assert reinvite.statuses == [100, 200]

    first = phone.requests()[0]
    local, remote = f"<{BOB}>;tag=bob1", (first.get(b"from") or b"").decode()
    route = f"Route: <{(first.record_routes()[0].uri or b'').decode()}>"
    bye = phone.ask("BYE", "sip:alice@10.0.0.2:5060", route, sender=local, to=remote, call_id=first.call_id.decode())
    scene.run()
    assert scene.alice.requests()[-1].method == b"BYE"
    scene.alice.answer(scene.alice.requests()[-1], 200)
    scene.run()
    assert bye.statuses == [200]
    scene.quiet()


def test_our_own_entries_leave_the_route_and_the_next_one_leads() -> None:
    scene = Scene(**TRUSTED)
    edge = scene.world.peer("edge", "10.0.0.50")
    routes = f"Route: <{US};lr>, <{US};lr;x=1>,<sip:10.0.0.50;lr>", "Route: <sip:10.0.0.60;lr>"
    scene.do(scene.alice.ask("BYE", "sip:bob@203.0.113.9", *routes, to=f"<{BOB}>;tag=b"))
    [bye] = edge.requests()
    assert [route.uri for route in bye.routes()] == [b"sip:10.0.0.50;lr", b"sip:10.0.0.60;lr"]
    assert bye.uri == b"sip:bob@203.0.113.9"


def test_a_friend_may_send_new_requests_through_us_to_others() -> None:
    scene = Scene(**TRUSTED)
    gateway = scene.world.peer("gateway", "10.0.0.70")
    call = scene.do(scene.alice.ask("INVITE", "sip:+4930123@10.0.0.70"))
    assert gateway.heard == ["INVITE"]
    routed = scene.do(scene.alice.ask("INVITE", BOB, "Route: <sip:10.0.0.70;lr>"))
    assert gateway.heard == ["INVITE", "INVITE"]
    assert gateway.requests()[1].uri == BOB.encode()
    for ask, request in zip((call, routed), gateway.requests(), strict=True):
        gateway.answer(request, 486)
        scene.run()
        assert ask.statuses == [100, 486]
    scene.quiet([call, routed])


def test_an_ack_inside_a_dialog_goes_on_without_an_answer_or_a_transaction() -> None:
    scene = Scene()
    call = scene.call()
    scene.answer(scene.phones[0], 200)
    before = len(scene.world.engine.layer)
    scene.do(in_dialog(scene, call, "ACK", cseq=1))
    ack = scene.phones[0].requests()[-1]
    assert (ack.method, ack.max_forwards, len(ack.vias())) == (b"ACK", 69, 2)
    assert len(scene.world.engine.layer) == before
    scene.run(10.0)
    assert scene.phones[0].heard == ["INVITE", "ACK"]


def test_an_ack_to_a_name_waits_for_the_name() -> None:
    scene = Scene(**TRUSTED)
    scene.world.on_job = lambda job: "10.0.0.11"
    scene.do(scene.alice.ask("ACK", "sip:bob@phone.example.net", f"Route: <{US};lr>", to=f"<{BOB}>;tag=b"))
    assert scene.phones[0].heard == ["ACK"]
    scene.world.on_job = lambda job: None
    scene.do(scene.alice.ask("ACK", "sip:bob@gone.example.net", f"Route: <{US};lr>", to=f"<{BOB}>;tag=b"))
    assert scene.world.engine.counters["ack.unreachable"] == 1


# --- loops and spirals (§16.3 step 4, RFC 5393) -----------------------------------------------------------------------


def to_itself(scene: Scene) -> list[bytes]:
    """What the proxy has sent to itself."""
    return [data for target, data in out(scene) if target == PROXY]


def test_a_contact_that_leads_back_to_us_is_a_loop_after_one_round() -> None:
    scene = Scene(0)
    scene.do(scene.alice.register("bob@example.com", f"<sip:bob@{PROXY[0]}:{PROXY[1]}>"))
    scene.world.sent.clear()
    call = scene.call()
    assert call.statuses == [100, 482]
    requests = [data for data in to_itself(scene) if data.startswith(b"INVITE")]
    assert len(requests) == 1
    scene.quiet([call])


def test_a_spiral_is_served() -> None:
    """carol's calls go to bob: the same request passes through us twice, with another request URI."""
    scene = Scene(1)
    scene.do(scene.alice.register("carol@example.com", f"<sip:bob@{PROXY[0]}:{PROXY[1]}>"))
    scene.world.sent.clear()
    call = scene.do(scene.alice.ask("INVITE", "sip:carol@example.com"))
    phone = scene.phones[0]
    assert phone.heard == ["INVITE"]
    assert len(phone.requests()[0].vias()) == 3
    scene.answer(phone, 180)
    scene.answer(phone, 200)
    assert call.statuses == [100, 180, 200]
    scene.do(in_dialog(scene, call, "ACK", cseq=1))
    assert phone.heard == ["INVITE", "ACK"]
    hang_up(scene, call)
    assert phone.heard == ["INVITE", "ACK", "BYE"]
    assert phone.requests()[-1].routes() == []


def test_a_via_of_somebody_else_that_looks_like_ours_is_no_loop() -> None:
    scene = Scene()
    call = scene.call("Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK0" + "0" * 18)
    assert call.statuses == [100]
    assert scene.phones[0].heard == ["INVITE"]


def test_two_addresses_that_fork_to_each_other_do_not_multiply() -> None:
    """RFC 5393: without a check, one INVITE becomes 2**70."""
    scene = Scene(0)
    for name in ("bob", "carol"):
        for contact in ("bob", "carol"):
            peer = scene.world.peer(name + contact, f"10.0.1.{len(scene.world.peers)}")
            scene.do(peer.register(f"{name}@example.com", f"<sip:{contact}@{PROXY[0]}:{PROXY[1]};x={name}>"))
    scene.world.sent.clear()
    call = scene.call()
    assert call.statuses == [100, 482]
    assert len([data for data in to_itself(scene) if data.startswith(b"INVITE")]) <= 60
    scene.quiet([call])


@pytest.mark.parametrize(
    ("phones", "asked", "shares"),
    [
        (1, None, [None]),  # 60 is what an absent header means
        (2, None, [30, 30]),
        (7, None, [8] * 7),
        (1, "Max-Breadth: 10", [10]),
        (3, "max-breadth:10", [3, 3, 3]),
        (2, "Max-Breadth: 4000", [30, 30]),
        (2, "Max-Breadth: many", [30, 30]),
    ],
)
def test_breadth_is_shared_by_the_branches(phones: int, asked: str | None, shares: list[int | None]) -> None:
    scene = Scene(phones)
    scene.call(*([asked] if asked else []))
    seen = [phone.requests()[0].get_all(b"max-breadth") for phone in scene.phones]
    assert seen == [[] if share is None else [b"%d" % share] for share in shares]


@pytest.mark.parametrize(("phones", "breadth"), [(1, 0), (2, 1), (4, 3)])
def test_a_request_that_may_not_become_that_many_is_refused_with_440(phones: int, breadth: int) -> None:
    scene = Scene(phones)
    call = scene.call(f"Max-Breadth: {breadth}")
    assert call.final.status == 440
    assert [phone.heard for phone in scene.phones] == [[]] * phones


def test_many_addresses_that_fork_to_each_other_do_not_multiply_either() -> None:
    scene = Scene(0)
    names = [f"user{number}" for number in range(7)]
    peer = scene.world.peer("eve", "10.0.1.1")
    for name in names:
        contacts = ", ".join(f"<sip:{other}@{PROXY[0]}:{PROXY[1]};x={name}>" for other in names)
        ask = peer.ask("REGISTER", "sip:example.com", f"Contact: {contacts}", to=f"<sip:{name}@example.com>")
        assert scene.do(ask).statuses == [200]
    scene.world.sent.clear()
    call = scene.do(scene.alice.ask("INVITE", "sip:user0@example.com"))
    assert call.final.status in (440, 482)
    invites = [data for data in to_itself(scene) if data.startswith(b"INVITE")]
    assert len(invites) <= 60
    scene.quiet([call])
