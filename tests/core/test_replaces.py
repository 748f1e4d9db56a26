"""INVITE with Replaces (RFC 3891) reaches the phone that has the dialog, and no other that is registered beside it."""

from __future__ import annotations

import pytest
from dialogkit import RELAY, Stage

from orchestrator.errors import MalformedMessage
from orchestrator.sip.replaces import Replaces, parse_refer_to, parse_replaces, replaces_of
from orchestrator.testing.peer import Peer

OF_BOB = "one;to-tag=bob2;from-tag=alice"
OF_ALICE = "one;to-tag=alice;from-tag=bob2"


def talking(flows: str) -> Stage:
    """alice and bob's second phone talk; carol is registered."""
    stage = Stage(flows)
    stage.answered()
    stage.carol = stage.world.peer("carol", "10.0.0.4")  # type: ignore[attr-defined]
    stage.carol.register("carol@example.com")  # type: ignore[attr-defined]
    stage.world.run()
    for peer in (stage.alice, *stage.bobs):
        peer.received.clear()
    return stage


def invite(stage: Stage, uri: str, replaces: str, sender: str = "carol") -> list[int]:
    """Statuses of the answers; who has got it stands in `received` of the peers."""
    peer: Peer = {"carol": stage.carol, "alice": stage.alice}[sender]  # type: ignore[attr-defined]
    ask = peer.ask("INVITE", uri, f"Replaces: {replaces}", "Require: replaces")
    stage.world.run()
    return ask.statuses


def rung(stage: Stage) -> list[str]:
    return [peer.name for peer in (stage.alice, *stage.bobs) if peer.requests("INVITE")]


@pytest.mark.parametrize(
    ("uri", "replaces", "who"),
    [
        ("sip:bob@example.com", OF_BOB, ["bob2"]),
        ("sip:alice@example.com", OF_ALICE, ["alice"]),
        ("sip:bob@example.com", OF_BOB + ";early-only", ["bob2"]),
        ("sip:bob@example.com", "other;to-tag=bob2;from-tag=alice", ["bob1", "bob2"]),
        ("sip:bob@example.com", "one;to-tag=bob1;from-tag=alice", ["bob1", "bob2"]),
        ("sip:bob@example.com", OF_ALICE, ["bob1", "bob2"]),
        ("sip:bob@example.com", "nonsense", ["bob1", "bob2"]),
    ],
)
def test_only_the_phone_that_has_the_dialog_is_rung(uri: str, replaces: str, who: list[str]) -> None:
    """Where nobody here has it, or it is another one's, all phones are asked; those refuse it by themselves."""
    stage = talking(RELAY)
    assert invite(stage, uri, replaces) == [100]
    assert rung(stage) == who
    got = next(peer for peer in (stage.alice, *stage.bobs) if peer.name == who[0]).requests("INVITE")[0]
    assert (got.get(b"replaces"), got.get(b"require")) == (replaces.encode(), b"replaces")


def test_a_call_that_no_flow_has_is_known_by_nobody() -> None:
    stage = talking("")
    assert invite(stage, "sip:bob@example.com", OF_BOB) == [100]
    assert rung(stage) == ["bob1", "bob2"]


def test_a_phone_may_name_the_contact_of_the_one_that_has_the_dialog() -> None:
    """RFC 5589 §7.3: Refer-To may be the Contact of the dialog. Only registered phones may, only for that dialog."""
    contact = "sip:bob2@10.0.0.12:5060"
    assert invite(talking(RELAY), contact, OF_BOB)[0] == 100
    stage = talking(RELAY)
    invite(stage, contact, OF_BOB)
    assert rung(stage) == ["bob2"]
    for uri, replaces in (("sip:bob1@10.0.0.11:5060", OF_BOB), (contact, "other;to-tag=bob2;from-tag=alice")):
        assert invite(talking(RELAY), uri, replaces) == [403]
    stage = talking(RELAY)
    eve = stage.world.peer("eve", "10.0.0.66")
    ask = eve.ask("INVITE", contact, f"Replaces: {OF_BOB}")
    stage.world.run()
    assert ask.statuses == [403]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (b"a@b;to-tag=1;from-tag=2", Replaces(b"a@b", b"1", b"2")),
        (b"a@b ; from-tag=2;to-tag=1 ;early-only", Replaces(b"a@b", b"1", b"2", True)),
        (b"a;to-tag=1", None),
        (b"a;from-tag=1", None),
        (b";to-tag=1;from-tag=2", None),
        (b"a;to-tag=1;from-tag=2;to-tag=3", None),
        (b"", None),
    ],
)
def test_a_value_names_one_dialog(value: bytes, meant: Replaces | None) -> None:
    if meant is None:
        with pytest.raises(MalformedMessage):
            parse_replaces(value)
    else:
        assert parse_replaces(value) == meant


@pytest.mark.parametrize(
    ("value", "replaces"),
    [
        (b"<sip:a@b?Replaces=x%40y%3Bto-tag%3D1%3Bfrom-tag%3D2>", b"x@y;to-tag=1;from-tag=2"),
        (b"Carol <sip:a@b?Subject=x&REPLACES=1>;p=q", b"1"),
        (b"<sip:a@b;x=y>", None),
        (b"<sip:a@b?Replaced=1>", None),
        (b"<tel:+49>", None),
    ],
)
def test_refer_to_names_it_in_a_header_of_the_uri(value: bytes, replaces: bytes | None) -> None:
    assert replaces_of(parse_refer_to(value).parsed) == replaces
