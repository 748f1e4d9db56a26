"""What the log says at info, who can fill it, and SIP traces with their secrets masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from loguru import logger

from orchestrator.flow.loader import Source, load_sources
from orchestrator.history import History, MessageIn, MessageOut
from orchestrator.runtime.news import PER_EVENT, PER_SOURCE, News
from orchestrator.runtime.siptrace import SipTrace
from orchestrator.sip.masking import as_long, masked
from orchestrator.sip.points import Hop
from orchestrator.testing.world import World

FLOWS = """flowlang: 1
flows:
  fails:
    on: invite
    when: call.target.user == 'fails'
    do:
      - fs.api: status
  rings:
    on: invite
    do:
      - relay: registered
"""


@pytest.fixture
def lines() -> Any:
    found: list[tuple[str, str, dict[str, Any]]] = []
    sink = logger.add(
        lambda message: found.append(
            (message.record["level"].name, message.record["message"], message.record["extra"])
        ),
        level="DEBUG",
    )
    yield found
    logger.remove(sink)


def told(world: World) -> list[tuple[str, dict[str, Any]]]:
    news: list[tuple[str, dict[str, Any]]] = []

    def tell(event: str, facts: Mapping[str, Any]) -> None:
        news.append((event, {name: fact() if callable(fact) else fact for name, fact in facts.items()}))

    world.engine.on_news = tell
    return news


def test_calls_registrations_and_what_was_dropped() -> None:
    world = World(load_sources([Source("a.flow.yaml", FLOWS)])[0])
    news = told(world)
    alice, bob = world.phone("alice@example.com", "10.0.0.2"), world.phone("bob@example.com", "10.0.0.3")
    bob.register()
    world.run()
    bob.register()  # refreshed: not worth a line
    world.run()
    call = alice.invite("bob@example.com")
    world.run(1)
    bob.calls[0].answer()
    world.run(2)
    call.hangup()
    world.run()
    bob.register(expires=0)
    world.run()
    world.deliver(b"INVITE sip:bob@example.com SIP/2.0\r\nnothing\r\n\r\n", ("10.0.0.9", 5060), ("10.0.0.1", 5060))
    world.run()
    assert [event for event, _ in news] == ["registered", "call_begun", "call_ended", "unregistered", "malformed"]
    facts = dict(news)
    assert facts["registered"]["aor"] == "bob@example.com" and facts["registered"]["source"] == "10.0.0.3"
    assert (facts["call_begun"]["from"], facts["call_begun"]["to"]) == ("alice@example.com", "bob@example.com")
    assert facts["call_begun"]["call"] == facts["call_ended"]["call"]
    assert (facts["call_ended"]["by"], facts["call_ended"]["code"]) == ("caller", 200)
    assert facts["malformed"]["source"] == "10.0.0.9" and facts["malformed"]["reason"]


def test_a_run_that_fails_says_what_the_caller_got() -> None:
    world = World(load_sources([Source("a.flow.yaml", FLOWS)])[0])
    failures: list[tuple[str, str, str, int, int]] = []
    world.engine.flows.on_failure = lambda run, what, error, code: failures.append(
        (run.flow.name, what, error.type, error.line, code)
    )
    world.phone("alice@example.com", "10.0.0.2").invite("fails@example.com")
    world.run(1)
    assert failures == [("fails", "flow", "esl.down", 7, 500)]


OTHER = """flowlang: 1
flows:
  helper:
    do:
      - log: first
      - fs.api: status
"""
CALLER = """flowlang: 1
flows:
  asks:
    on: invite
    do:
      - call: helper
"""


def test_a_failure_is_placed_in_the_file_it_happened_in() -> None:
    world = World(load_sources([Source("a.flow.yaml", CALLER), Source("b.flow.yaml", OTHER)])[0])
    places: list[str] = []
    world.engine.flows.on_failure = lambda run, what, error, code: places.append(f"{error.file}:{error.line}")
    world.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    world.run(1)
    assert places == ["b.flow.yaml:6"]


@pytest.mark.parametrize(("ending", "code"), [("busy", 486), ("cancelled", 487), ("nobody", 480), ("gone", 480)])
def test_a_call_that_no_flow_takes_ends_in_the_log_without_a_bye(ending: str, code: int) -> None:
    world = World()
    news = told(world)
    alice, bob = world.phone("alice@example.com", "10.0.0.2"), world.phone("bob@example.com", "10.0.0.3")
    if ending != "nobody":
        bob.register()
        world.run()
    if ending == "gone":
        bob.on_invite = lambda call: None
    call = alice.invite("bob@example.com")
    world.run(0.1)
    if ending == "busy":
        bob.calls[0].reject(486)
    elif ending == "cancelled":
        call.hangup()
    elif ending == "gone":
        copy = next(data for _, _, to, data in world.sent if data.startswith(b"INVITE") and to[0] == "10.0.0.3")
        world.engine.transport_failed(Hop(world.engine.network.points[0], "10.0.0.3", 5060), copy, world.now)
    world.run(40)
    ended = [facts for event, facts in news if event == "call_ended"]
    assert [facts["code"] for facts in ended] == [code]
    assert [event for event, _ in news].count("call_begun") == 1


def test_strangers_cannot_fill_the_log(lines: Any) -> None:
    now = [0.0]
    news = News(clock=lambda: now[0])
    for _ in range(1000):
        news.tell("malformed", {"source": "192.0.2.1", "reason": "\x1b[31m" + "x" * 5000})
    assert len(lines) == PER_SOURCE
    assert all(len(extra["reason"]) <= 201 for _, _, extra in lines)
    for number in range(1000):
        news.tell("malformed", {"source": f"192.0.3.{number}"})
    assert len(lines) == PER_EVENT, "what was suppressed takes nothing from others"
    now[0] = 1.0
    news.tell("malformed", {"source": "192.0.2.9"})
    assert sum(extra.get("suppressed", 0) for _, _, extra in lines) == 2000 - PER_EVENT


def test_what_costs_something_is_found_out_for_a_line_that_is_written(lines: Any) -> None:
    news, asked = News(clock=lambda: 0.0), []

    def found() -> str:
        asked.append(1)
        return "alice"

    for _ in range(PER_SOURCE + 5):
        news.tell("call_begun", {"from": found, "to": lambda: "", "source": "192.0.2.1"})
    assert len(asked) == len(lines) == PER_SOURCE
    assert lines[0][2] == {"from": "alice", "address": "192.0.2.1"}


def test_a_quiet_log_has_warnings_only(lines: Any) -> None:
    news = News(quiet=True)
    news.tell("call_begun", {"call": "1"})
    news.tell("run_failed", {"flow": "x"})
    assert [(level, event) for level, event, _ in lines] == [("WARNING", "run_failed")]


MESSAGE = (
    "REGISTER sip:example.com SIP/2.0\r\nTo: <sip:alice@example.com>\r\nCall-ID: c1\r\n"
    'Authorization: Digest username="alice", nonce="n0nce", uri="sip:example.com",\r\n response="deadbeef"\r\n'
    "Proxy-Authorization: Basic c2VjcmV0\r\nContact: <sip:a@10.0.0.2;pn-prid=t0ken>\r\n\r\n"
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:k3y\r\na=ice-pwd:p4ss\r\n"
)


def test_secrets_are_masked() -> None:
    shown = masked(MESSAGE.encode()).decode()
    for secret in ("n0nce", "deadbeef", "c2VjcmV0", "t0ken", "k3y", "p4ss"):
        assert secret not in shown
    assert 'username="alice"' in shown and "Digest" in shown


def test_the_names_of_phones_inside_dialogs_are_masked() -> None:
    """RFC 8599 §6: whoever has a PURR may wake the phone, as whoever has its token may."""
    answer = b'SIP/2.0 200 OK\r\nFeature-Caps: *;+sip.pns="apns";+sip.pnsreg="121";+sip.pnspurr="S3-cret_"\r\n\r\n'
    assert masked(answer) == answer.replace(b"S3-cret_", b"***")
    assert masked(b"x" * 9 + b";pn-purr=S3-cret_>") == b"x" * 9 + b";pn-purr=***>"


def test_a_mask_may_be_as_long_as_the_secret() -> None:
    """Content-Length stays true."""
    shown = masked(MESSAGE.encode(), as_long)
    assert len(shown) == len(MESSAGE)
    assert b'nonce="*****"' in shown and b"Basic ********\r\n" in shown and b"inline:***\r\n" in shown
    assert masked(MESSAGE.encode()).count(b"***") == 6


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("alice@example.com", True),
        ("alice", True),
        ("10.0.0.2", True),
        ("10.0.0.2:5060", True),
        ("10.0.0.2:5061", False),
        ("10.0.0.20", False),
        ("lice@example.com", False),
        ("alice@example.co", False),
        ("bob", False),
    ],
)
def test_a_trace_shows_what_was_asked_for(target: str, seen: bool) -> None:
    history = History()
    trace = SipTrace(False, history)
    found: list[dict[str, Any]] = []
    watcher = trace.open(target, found.append)
    history.tell(MessageIn(MESSAGE.encode(), "10.0.0.2", 5060, 0))
    history.tell(MessageOut(b"SIP/2.0 200 OK\r\nCall-ID: c1\r\n\r\n", "10.0.0.99", 9, 0))
    trace.close(watcher)
    assert len(found) == (2 if seen else 0), "the whole of a call that matched"
    assert not history.hears(MessageIn) and not history.hears(MessageOut), "nobody looks any more"


def test_debug_shows_messages_in_short(lines: Any) -> None:
    history = History()
    SipTrace(True, history)
    history.tell(MessageIn(MESSAGE.encode(), "10.0.0.2", 5060, 0))
    assert [(level, event) for level, event, _ in lines] == [("DEBUG", "sip_received")]
    assert lines[0][2]["first"] == "REGISTER sip:example.com SIP/2.0"


@pytest.mark.parametrize(
    "line", [b"k=clear:s3cret", b"K=clear:s3cret", b"A=ICE-PWD:s3cret", b"m: <sip:a@b;PN-TOK=s3cret>"]
)
def test_secrets_are_found_in_any_case(line: bytes) -> None:
    assert b"s3cret" not in masked(b"SIP/2.0 200 OK\r\n\r\nv=0\r\n" + line + b"\r\n")
