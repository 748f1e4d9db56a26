"""Ladders: lifelines, arrows, repetitions, and a drawing in which nothing of a stranger is markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from historykit import RELAY, Kept

from orchestrator.history import MessageIn, MessageOut, SipMessage
from orchestrator.views.ladder import NOBODY, Peers, ladder
from orchestrator.views.ladder_svg import ladder_svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def of(kept: Kept, call: str) -> dict[str, Any]:
    found = kept.history.find(call)
    assert found is not None
    return ladder(found.messages, kept.world.engine.settings.wall_offset, Peers.of(kept.world.engine))


def message(text: str, host: str = "10.0.0.2", port: int = 5060, time: float = 0.0, out: bool = False) -> SipMessage:
    kind = MessageOut if out else MessageIn
    return kind(text.replace("\n", "\r\n").encode() + b"\r\n\r\n", host, port, 0, time=time)


def drawn(*messages: SipMessage, peers: Peers = NOBODY) -> dict[str, Any]:
    return ladder(((str(n), told) for n, told in enumerate(messages)), 0.0, peers)


def test_the_ladder_of_a_call(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    drawing = of(kept, kept.whole())
    assert [(line["id"], line["kind"], line["name"], line["address"]) for line in drawing["lifelines"]] == [
        ("p1", "phone", "alice", "10.0.0.2:5060"),
        ("us", "orchestrator", "Orchestrator", ""),
        ("p2", "phone", "bob", "10.0.0.3:5060"),
    ]
    assert [(arrow["from"], arrow["to"], arrow["text"], arrow["kind"]) for arrow in drawing["arrows"]] == [
        ("p1", "us", "INVITE", "request"),
        ("us", "p1", "100 Trying", "provisional"),
        ("us", "p2", "INVITE", "request"),
        ("p2", "us", "180 Ringing", "provisional"),
        ("us", "p1", "180 Ringing", "provisional"),
        ("p2", "us", "200 OK", "success"),
        ("us", "p1", "200 OK", "success"),
        ("p1", "us", "ACK", "request"),
        ("us", "p2", "ACK", "request"),
        ("p1", "us", "BYE", "request"),
        ("us", "p2", "BYE", "request"),
        ("p2", "us", "200 OK (BYE)", "success"),
        ("us", "p1", "200 OK (BYE)", "success"),
    ]
    first = drawing["arrows"][0]
    assert first["n"] == 1 and first["id"] == "1.0" and first["body"] and first["leg"] == 1
    assert first["time"] == "2027-01-15T08:00:00.110Z" and drawing["arrows"][-1]["at"] == 2.12


def test_a_repetition_is_counted_by_the_first() -> None:
    invite = "INVITE sip:bob@x SIP/2.0\nCall-ID: 1\nCSeq: 1 INVITE"
    again = [message(invite, time=time) for time in (0.0, 0.5, 1.5)]
    drawing = drawn(*again, message(invite, "10.0.0.9", time=2.0))
    assert [(arrow["repeats"], arrow["last"]) for arrow in drawing["arrows"]] == [
        (2, "1970-01-01T00:00:01.500Z"),
        (0, None),
    ]


def test_freeswitch_and_gateways_have_their_names() -> None:
    peers = Peers({("gw.example.net", 5060): "trunk"}, {("10.0.0.5", 5080): "fs1"})
    invite = "INVITE sip:%s SIP/2.0\nFrom: <sip:alice@example.com>;tag=1\nCall-ID: 1\nCSeq: 1 INVITE"
    drawing = drawn(
        message(invite % "bob@example.com"),
        message(invite % "bob@10.0.0.5:5080", "10.0.0.5", 5080, out=True),
        message(invite % "0123@gw.example.net", "192.0.2.7", out=True),
        message((invite % "bob@x") + "\nX-Orchestrator-Call: abc", "10.0.0.6", out=True),
        peers=peers,
    )
    assert [(line["kind"], line["name"]) for line in drawing["lifelines"]] == [
        ("phone", "alice"),
        ("orchestrator", "Orchestrator"),
        ("freeswitch", "fs1"),
        ("gateway", "trunk"),
        ("freeswitch", "FreeSWITCH"),
    ]


def test_a_phone_on_the_host_of_a_gateway_keeps_its_name() -> None:
    peers = Peers({("127.0.0.1", 6100): "trunk"})
    invite = "INVITE sip:%s SIP/2.0\nFrom: <sip:alice@example.com>;tag=1\nCall-ID: 1\nCSeq: 1 INVITE"
    drawing = drawn(
        message(invite % "bob@example.com", "127.0.0.1", 6001),
        message(invite % "bob@127.0.0.1:6002", "127.0.0.1", 6002, out=True),
        message(invite % "0123@127.0.0.1:6100", "127.0.0.1", 6100, out=True),
        peers=peers,
    )
    assert [line["name"] for line in drawing["lifelines"]] == ["alice", "Orchestrator", "bob", "trunk"]


def test_a_gateway_is_known_by_its_host_where_it_opens_a_connection() -> None:
    peers = Peers({("192.0.2.7", 5060): "trunk"})
    assert peers.gateway("192.0.2.7", 40000, any_port=True) == "trunk"
    assert peers.gateway("192.0.2.7", 40000, any_port=False) is None
    two = Peers({("192.0.2.7", 5060): "trunk", ("192.0.2.7", 5070): "other"})
    assert two.gateway("192.0.2.7", 40000, any_port=True) is None


def test_the_names_come_from_program_and_site(tmp_path: Path) -> None:
    flow = RELAY.replace("flows:", "gateways:\n  trunk: {uri: 'sip:gw.example.net'}\nflows:")
    kept = Kept(tmp_path, flow, freeswitch={"fs1": "sip:10.0.0.5:5080"})
    peers = Peers.of(kept.world.engine, "fs1")
    assert peers == Peers({("gw.example.net", 5060): "trunk"}, {("10.0.0.5", 5080): "fs1"}, "fs1")


@pytest.mark.parametrize(
    ("line", "text", "kind"),
    [
        ("SIP/2.0 302 Moved", "302 Moved", "redirect"),
        ("SIP/2.0 486 Besetzt", "486 Besetzt", "failure"),
        ("SIP/2.0 503 ", "503 Service Unavailable", "failure"),
        ("SIP/2.0 603 Decline", "603 Decline", "failure"),
        ("SIP/2.0 183 In\tprogress", "183 In\tprogress", "provisional"),
        ("garbage", "?", "request"),
    ],
)
def test_what_an_arrow_says(line: str, text: str, kind: str) -> None:
    (arrow,) = drawn(message(f"{line}\nCall-ID: 1\nCSeq: 1 INVITE"))["arrows"]
    assert (arrow["text"], arrow["kind"]) == (text, kind)


# --- the drawing ------------------------------------------------------------------------------------------------------


def test_each_message_is_an_element_of_the_drawing(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    drawing = of(kept, kept.whole())
    root = ElementTree.fromstring(ladder_svg(drawing, "alice calls bob"))
    groups = {group.get("id"): group for group in root.iter(f"{NAMESPACE}g") if "arrow" in str(group.get("class"))}
    assert list(groups) == [f"m{arrow['n']}" for arrow in drawing["arrows"]]
    assert [group.get("data-message") for group in groups.values()] == [arrow["id"] for arrow in drawing["arrows"]]
    texts = [text.text for text in root.iter(f"{NAMESPACE}text") if text.get("class") == "text"]
    assert texts[:2] == ["INVITE +SDP", "100 Trying"]
    assert groups["m2"].get("class") == "arrow provisional"


def test_all_stands_inside_and_in_order(tmp_path: Path) -> None:
    invite = "INVITE sip:%s SIP/2.0\nFrom: <sip:alice@example.com>\nCall-ID: %d\nCSeq: 1 INVITE"
    many = [message(invite % (f"user{n}@x", n), f"10.0.1.{n % 7}", out=bool(n % 2)) for n in range(500)]
    drawing = drawn(*many)
    root = ElementTree.fromstring(ladder_svg(drawing))
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    tops = []
    for group in root.iter(f"{NAMESPACE}g"):
        if "arrow" in str(group.get("class")):
            (hit,) = [found for found in group if found.get("class") == "hit"]
            left, top = float(hit.get("x", "")), float(hit.get("y", ""))
            assert left >= 0 and left + float(hit.get("width", "")) <= width
            assert top >= 0 and top + float(hit.get("height", "")) <= height
            tops.append(top)
    assert len(tops) == 500 and tops == sorted(tops) and len(set(tops)) == 500


def test_a_call_without_messages_is_a_drawing_too() -> None:
    assert ElementTree.fromstring(ladder_svg(drawn())) is not None


HOSTILE = '"><script>alert(1)</script>&\x00\x07\ufffe'


def test_texts_of_strangers_are_text() -> None:
    uri = f"sip:{HOSTILE}@x"
    told = message(f"INVITE {uri} SIP/2.0\nFrom: {HOSTILE} <{uri}>\nCall-ID: {HOSTILE}\nCSeq: 1 {HOSTILE}")
    reply = message(f"SIP/2.0 200 <script>{HOSTILE[:20]}\nCall-ID: 1\nCSeq: 1 INVITE")
    image = ladder_svg(ladder([('"><script>', told), ("1", reply)], 0.0, Peers()), HOSTILE)
    root = ElementTree.fromstring(image)
    tags = {element.tag.removeprefix(NAMESPACE) for element in root.iter()}
    assert tags <= {"svg", "title", "rect", "g", "path", "text", "polygon"}
    assert "<script" not in image


def test_a_strict_content_security_policy_refuses_nothing_in_it(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    image = ladder_svg(of(kept, kept.whole()))
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=|href|url\(", image)
