"""`relay: {to: registered, wake: 20s}` and `push:` of flows: phones that sleep, in every mode of a relay, with
`inject`, `cancel`, `keep_open`, `ring`, and through FreeSWITCH."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from wakekit import AOR, BOB, Night, program, push_parameters

from orchestrator.flow.run.trace import TraceWritten
from orchestrator.history import CallRecord
from orchestrator.sip.push import Push
from orchestrator.testing.peer import Ask

SAY = "      - log: '${result.outcome} ${result.code}'\n"


def relay(keys: str = "") -> str:
    return f"      - relay: {{to: registered, wake: 20s{keys}}}\n        as: result\n" + SAY


def night(tmp_path: Path, steps: str = "", on: str = "invite", top: str = "", **settings: Any) -> Night:
    return Night(program(tmp_path, steps or relay(), on, top), **settings)


def of_q(q: float) -> dict[str, str]:
    return {"more": f";q={q}"}


# --- the outcome ------------------------------------------------------------------------------------------------------


def test_a_phone_wakes_up_and_answers(tmp_path: Path) -> None:
    stage = night(tmp_path)
    records: list[CallRecord] = []
    lines: list[str] = []
    stage.engine.history.listen(CallRecord, records.append)
    stage.engine.history.listen(TraceWritten, lambda line: lines.append(line.line.text))
    phone = stage.sleeper()
    call = stage.call()
    stage.world.run(4)
    moved = stage.world.peer("bob", "192.0.2.9")
    stage.register(moved, "T1")
    stage.register(moved, "T1")
    assert stage.rung(phone, moved) == [0, 1]
    stage.reply(moved, 200)
    assert (call.statuses, stage.said) == ([100, 200], ["answered 200"])
    assert "push >> call to=sip:bob@10.0.0.11:5060 by apns" in lines
    assert "push -- sip:bob@10.0.0.11:5060 has woken up as sip:bob@192.0.2.9:5060" in lines
    stage.engine.calls.by_call_id(call.responses[0].call_id).hangup("enough", None)  # type: ignore[union-attr]
    stage.world.run()
    assert [(record.pushed, record.woken, record.code) for record in records] == [(1, 1, 200)]
    stage.world.run(70)


def test_nobody_wakes_up(tmp_path: Path) -> None:
    stage = night(tmp_path)
    stage.sleeper()
    records: list[CallRecord] = []
    stage.engine.history.listen(CallRecord, records.append)
    call = stage.call()
    stage.world.run(19.9)
    assert call.statuses == [100]
    stage.world.run(0.1)
    assert (call.statuses, stage.said) == ([100, 480], ["unavailable 480"])
    assert [(record.pushed, record.woken) for record in records] == [(1, 0)]
    stage.quiet(call)


def test_a_push_that_is_refused_ends_the_wait(tmp_path: Path) -> None:
    stage = night(tmp_path)
    stage.sleeper()
    stage.answer = None
    call = stage.call()
    stage.told(outcome="dead", reason="410 Unregistered")
    assert (call.statuses, stage.said) == ([100, 480], ["unavailable 480"])
    stage.quiet(call)


def test_nobody_can_be_pushed(tmp_path: Path) -> None:
    stage = night(tmp_path, per_phone=0)
    phone = stage.sleeper()
    call = stage.call()
    assert (stage.pushes, stage.rung(phone)) == ([], [1])
    stage.reply(phone, 480)
    assert (call.statuses, stage.said) == ([100, 480], ["unavailable 480"])
    stage.quiet(call)


def test_a_text_that_went_to_who_is_awake_goes_to_who_wakes_up(tmp_path: Path) -> None:
    stage = Night(program(tmp_path, "      - relay: {to: registered, wake: 20s}\n", on="message"))
    mobile, desk = stage.sleeper(), stage.phone("desk", "10.0.0.12")
    text = stage.call(method="MESSAGE")
    assert stage.rung(mobile, desk, method="MESSAGE") == [0, 1]
    stage.register(mobile, "T1")
    assert stage.rung(mobile, desk, method="MESSAGE") == [1, 1]
    stage.reply(mobile, 200, "MESSAGE")
    assert text.statuses == [200]
    stage.quiet(text)


def test_who_is_awake_rings_at_once_and_the_others_when_they_wake_up(tmp_path: Path) -> None:
    stage = night(tmp_path)
    mobile, desk = stage.sleeper(), stage.phone("desk", "10.0.0.12")
    call = stage.call()
    assert stage.rung(mobile, desk) == [0, 1]
    stage.reply(desk, 486)
    assert call.statuses == [100]
    stage.register(mobile, "T1")
    stage.reply(mobile, 480)
    assert stage.said == ["busy 486"] or stage.said == ["unavailable 480"]
    stage.quiet(call)


def test_without_wake_a_flow_rings_phones_as_they_are(tmp_path: Path) -> None:
    stage = night(tmp_path, "      - relay: registered\n")
    phone = stage.sleeper()
    call = stage.call()
    assert (stage.pushes, stage.rung(phone)) == ([], [1])
    stage.reply(phone, 486)
    stage.quiet(call)


def test_of_a_flow_that_relays_to_an_address(tmp_path: Path) -> None:
    stage = night(
        tmp_path, f"      - relay: {{aor: {AOR}, wake: 5s, headers: {{X-A: b}}, from: 'Desk <sip:d@example.com>'}}\n"
    )
    phone = stage.sleeper()
    call = stage.call("sip:sales@example.com")
    [job] = stage.jobs
    assert isinstance(job.effect, Push)
    assert (job.effect.data["from"], job.effect.data["display_name"], job.effect.ttl) == ("d@example.com", "Desk", 5.0)
    stage.register(phone, "T1")
    [invite] = (stage.reply(phone, 486),)
    assert invite.get(b"x-a") == b"b"
    assert invite.from_.parsed.aor == "d@example.com"
    stage.quiet(call)


# --- modes ------------------------------------------------------------------------------------------------------------


def test_serial_whoever_wakes_up_waits_for_his_turn(tmp_path: Path) -> None:
    stage = night(tmp_path, relay(", mode: serial"))
    best = stage.sleeper("best", "10.0.0.11", "T1", **of_q(0.9))
    first = stage.phone("first", "10.0.0.12", **of_q(0.5))
    last = stage.phone("last", "10.0.0.13", **of_q(0.1))
    call = stage.call()
    assert stage.rung(best, first, last) == [0, 1, 0]
    stage.register(best, "T1", more=";q=0.9")
    assert stage.rung(best, first, last) == [0, 1, 0], "one after the other"
    stage.reply(first, 486)
    assert stage.rung(best, first, last) == [1, 1, 0]
    stage.reply(best, 486)
    assert stage.rung(best, first, last) == [1, 1, 1]
    stage.reply(last, 486)
    assert (call.statuses, stage.said) == ([100, 486], ["busy 486"])
    stage.quiet(call)


def test_serial_whoever_wakes_up_when_nobody_rings_rings_at_once(tmp_path: Path) -> None:
    stage = night(tmp_path, relay(", mode: serial, each: 5s"))
    mobile, desk = stage.sleeper(), stage.phone("desk", "10.0.0.12")
    call = stage.call()
    stage.world.run(5)
    assert stage.rung(desk, method="CANCEL") == [0] or stage.rung(desk, method="CANCEL") == [1]
    stage.register(mobile, "T1")
    assert stage.rung(mobile) == [1]
    stage.world.run(5)
    assert stage.said == ["no_answer 408"], "each: holds for it, too"
    stage.quiet(call)


def test_by_q_whoever_wakes_up_joins_those_who_ring_unless_he_wants_it_less(tmp_path: Path) -> None:
    stage = night(tmp_path, relay(", mode: by_q"))
    high = stage.phone("high", "10.0.0.11", "T1", **of_q(0.9))
    low = stage.phone("low", "10.0.0.12", "T2", **of_q(0.1))
    stage.world.run(31)
    desk = stage.phone("desk", "10.0.0.13", **of_q(0.5))
    call = stage.call()
    stage.register(low, "T2", more=";q=0.1")
    assert stage.rung(high, desk, low) == [0, 1, 0]
    stage.register(high, "T1", more=";q=0.9")
    assert stage.rung(high, desk, low) == [1, 1, 0]
    stage.reply(desk, 486)
    assert stage.rung(high, desk, low) == [1, 1, 0]
    stage.reply(high, 486)
    assert stage.rung(high, desk, low) == [1, 1, 1]
    stage.reply(low, 200)
    assert call.statuses == [100, 200]
    stage.engine.calls.by_call_id(call.responses[0].call_id).hangup("enough", None)  # type: ignore[union-attr]
    stage.world.run(70)


# --- other keys -------------------------------------------------------------------------------------------------------


def test_ring_bounds_the_wait(tmp_path: Path) -> None:
    stage = night(tmp_path, relay(", ring: 10s"))
    stage.sleeper()
    call = stage.call()
    stage.world.run(10)
    assert (call.statuses, stage.said) == ([100, 408], ["no_answer 408"])
    assert stage.pushes == [("call", "T1"), ("cancel", "T1")]
    stage.quiet(call)


@pytest.mark.parametrize(("keep_open", "ends"), [("5s", 20), ("30s", 30)])
def test_the_longer_of_wake_and_keep_open_counts(keep_open: str, ends: float, tmp_path: Path) -> None:
    stage = night(tmp_path, relay(f", keep_open: {keep_open}"))
    stage.sleeper()
    call = stage.call()
    stage.world.run(ends - 0.1)
    assert call.statuses == [100]
    stage.world.run(0.1)
    assert call.statuses == [100, 480]
    stage.quiet(call)


INJECT = """      - subscribe: registered
        where: {aor: '${call.target.aor}'}
        do:
          - inject: {to: '${event.uri}'%s}
"""


def test_a_phone_that_a_handler_injects_as_well_rings_once(tmp_path: Path) -> None:
    stage = night(tmp_path, INJECT % "" + relay())
    phone = stage.sleeper()
    call = stage.call()
    stage.register(phone, "T1")
    assert stage.rung(phone) == [1]
    stage.reply(phone, 486)
    assert call.statuses == [100, 486]
    stage.quiet(call)


@pytest.mark.parametrize("how", [", last: true", ", cancel_others: when_sent"])
def test_an_inject_that_is_the_last_ends_the_wait(how: str, tmp_path: Path) -> None:
    stage = night(tmp_path, INJECT % how + relay())
    stage.sleeper()
    call = stage.call()
    desk = stage.phone("desk", "10.0.0.12")
    desk_rings = stage.world.peers["10.0.0.12", 5060]
    assert desk_rings is desk
    assert stage.pushes == [("call", "T1"), ("cancel", "T1")]
    stage.world.run(1)
    call.cancel()
    stage.world.run()
    assert call.statuses == [100, 487]
    stage.quiet()


@pytest.mark.parametrize("what", ["[all]", f"['sip:bob@10.0.0.11:5060;{push_parameters('T1')}']"])
def test_cancel_stops_waiting(what: str, tmp_path: Path) -> None:
    steps = f"""      - parallel:
          - - sleep: 2s
            - cancel: {what}
          - - relay: {{to: registered, wake: 20s}}
              as: result
            - log: '${{result.outcome}} ${{result.code}}'
"""
    stage = night(tmp_path, steps)
    phone = stage.sleeper()
    call = stage.call()
    stage.world.run(2)
    assert stage.pushes == [("call", "T1"), ("cancel", "T1")]
    assert stage.said in (["cancelled 487"], ["unavailable 480"])
    stage.register(phone, "T1")
    assert stage.rung(phone) == [0]
    stage.quiet(call)


def test_a_timeout_of_the_step_stops_waiting(tmp_path: Path) -> None:
    steps = "      - relay: {to: registered, wake: 20s}\n        timeout: 3s\n"
    stage = night(tmp_path, steps)
    stage.sleeper()
    call = stage.call()
    stage.world.run(3)
    assert call.statuses[-1] >= 400
    assert stage.pushes == [("call", "T1"), ("cancel", "T1")]
    stage.quiet(call)


def test_the_caller_gives_up(tmp_path: Path) -> None:
    stage = night(tmp_path)
    phone = stage.sleeper()
    call = stage.call()
    call.cancel()
    stage.world.run()
    assert call.statuses == [100, 487]
    assert stage.pushes == [("call", "T1"), ("cancel", "T1")]
    stage.register(phone, "T1")
    assert stage.rung(phone) == [0]
    stage.quiet(call)


def test_a_stop_refuses_who_waits(tmp_path: Path) -> None:
    stage = night(tmp_path)
    stage.sleeper()
    call = stage.call()
    stage.engine.drain(stage.world.now)
    stage.world.run()
    assert call.statuses == [100, 503]
    assert stage.pushes == [("call", "T1"), ("cancel", "T1")]
    stage.quiet(call)


def test_a_program_that_is_reloaded_leaves_the_wait(tmp_path: Path) -> None:
    stage = night(tmp_path)
    phone = stage.sleeper()
    call = stage.call()
    stage.engine.load(program(tmp_path, "      - reply: 486\n"), stage.world.site)
    stage.register(phone, "T1")
    stage.reply(phone, 603)
    assert (call.statuses, stage.said) == ([100, 603], ["rejected 603"])
    stage.quiet(call)


# --- texts ------------------------------------------------------------------------------------------------------------


def test_a_text_under_a_flow_waits(tmp_path: Path) -> None:
    stage = night(tmp_path, relay(), on="message")
    phone = stage.sleeper()
    ask = stage.call(method="MESSAGE")
    assert stage.pushes == [("message", "T1")]
    stage.world.run(5)
    stage.register(phone, "T1")
    stage.reply(phone, 200, "MESSAGE")
    assert (ask.statuses, stage.said) == ([200], ["answered 200"])
    stage.quiet(ask)


def test_a_text_under_a_flow_that_nobody_takes(tmp_path: Path) -> None:
    stage = night(tmp_path, relay(), on="message")
    stage.sleeper()
    desk = stage.phone("desk", "10.0.0.12")
    ask = stage.call(method="MESSAGE")
    stage.reply(desk, 486, "MESSAGE")
    assert ask.statuses == []
    stage.world.run(20)
    assert (ask.statuses, stage.said) == ([486], ["busy 486"])
    stage.quiet(ask)


def test_a_stop_refuses_a_text_that_waits(tmp_path: Path) -> None:
    stage = night(tmp_path, relay(), on="message")
    stage.sleeper()
    ask = stage.call(method="MESSAGE")
    stage.engine.drain(stage.world.now)
    stage.world.run()
    assert ask.statuses == [503]
    stage.quiet(ask)


# --- push: ------------------------------------------------------------------------------------------------------------

PUSH = f"""      - push: {{to: {AOR}, data: {{door: front}}, services: {{apns: {{sound: bell}}}}}}
        as: pushed
      - log: '${{pushed.sent}} ${{pushed.failed}} ${{pushed.dead}}'
      - reply: 404
"""


def test_push_wakes_whoever_sleeps_and_counts(tmp_path: Path) -> None:
    stage = night(tmp_path, PUSH)
    for number in range(1, 4):
        stage.phone(f"p{number}", f"10.0.0.1{number}", f"T{number}")
    stage.world.run(31)
    stage.phone("awake", "10.0.0.20", "T4")
    stage.phone("desk", "10.0.0.21")
    stage.answer = None
    call = stage.call()
    assert sorted(stage.pushes) == [("call", "T1"), ("call", "T2"), ("call", "T3")]
    push = stage.jobs[0].effect
    assert isinstance(push, Push)
    assert (push.data["from"], push.data["door"], push.options, push.ttl) == (
        "alice@example.com", "front", {"sound": "bell"}, 20.0,
    )  # fmt: skip
    for number, outcome in enumerate(("sent", "failed", "dead")):
        assert stage.said == []
        stage.told(number, outcome)
    assert (stage.said, call.statuses) == (["1 1 1"], [100, 404])
    stage.quiet(call)


def test_push_needs_no_call(tmp_path: Path) -> None:
    top = "events:\n  bell: {door: text}\n"
    steps = (
        f"      - push: {{to: {AOR}, kind: message, ttl: 1h}}\n        as: pushed\n      - log: '${{pushed.sent}}'\n"
    )
    stage = night(tmp_path, steps, "{event: bell}", top)
    stage.sleeper()
    from orchestrator.events.event import Event

    stage.engine.receive_event(Event("bell", {"door": "front"}), stage.world.now)
    stage.world.run()
    assert (stage.pushes, stage.said) == ([("message", "T1")], ["1"])
    push = stage.jobs[0].effect
    assert isinstance(push, Push)
    assert (push.ttl, push.collapse, push.call, push.data) == (3600.0, "", "", {})


def test_push_to_nobody_goes_on_at_once(tmp_path: Path) -> None:
    stage = night(tmp_path, PUSH)
    call = stage.call()
    assert (stage.said, call.statuses) == (["0 0 0"], [100, 404])
    stage.quiet(call)


def test_push_that_a_phone_gets_no_more(tmp_path: Path) -> None:
    stage = night(tmp_path, PUSH, per_phone=0)
    stage.sleeper()
    call = stage.call()
    assert (stage.said, call.statuses) == (["0 1 0"], [100, 404])
    stage.quiet(call)


def test_a_caller_who_gives_up_while_push_waits(tmp_path: Path) -> None:
    stage = night(tmp_path, PUSH)
    stage.sleeper()
    stage.answer = None
    call = stage.call()
    call.cancel()
    stage.world.run()
    stage.told(0)
    assert call.statuses == [100, 487]
    stage.quiet(call)


# --- through FreeSWITCH -----------------------------------------------------------------------------------------------

VIA = """      - relay: {to: registered, via: fs1, wake: 20s}
        as: result
      - log: '${result.outcome} ${result.code}'
"""
SWITCH = "freeswitch: {fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}}\n"


class Through:
    """alice calls bob through FreeSWITCH, which sends the call back when it is told to."""

    def __init__(self, folder: Path, keys: str = "") -> None:
        server = ip_network("10.0.0.9/32")
        self.night = Night(
            program(folder, VIA.replace("20s", f"20s{keys}"), top=SWITCH),
            freeswitch={"fs1": "sip:10.0.0.9:5080"},
            trust=(server,),
        )
        self.switch = self.night.world.peer("fs", "10.0.0.9", 5080)

    def back(self) -> Ask:
        """FreeSWITCH's second leg."""
        header = (self.switch.requests("INVITE")[0].get(b"x-orchestrator-call") or b"").decode()
        return self.night.call(BOB, f"X-Orchestrator-Call: {header}", peer=self.switch)


@pytest.mark.parametrize("early", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("keys", ["", ", mode: serial", ", mode: by_q"])
def test_a_phone_wakes_up_before_and_after_freeswitch_has_sent_the_call_back(
    early: bool, keys: str, tmp_path: Path
) -> None:
    stage = Through(tmp_path, keys)
    night = stage.night
    mobile, desk = night.sleeper(), night.phone("desk", "10.0.0.12")
    call = night.call()
    assert night.pushes == [("call", "T1")], "while FreeSWITCH still has the call"
    if early:
        night.register(mobile, "T1")
    assert night.rung(mobile, desk) == [0, 0]
    leg = stage.back()
    if not early:
        assert night.rung(mobile, desk) == [0, 1]
        night.register(mobile, "T1")
    if "serial" in keys:
        assert sum(night.rung(mobile, desk)) == 1
        night.reply(next(peer for peer in (mobile, desk) if night.rung(peer) == [1]), 486)
    assert night.rung(mobile, desk) == [1, 1]
    answering = mobile if "serial" not in keys or not early else next(p for p in (mobile, desk) if p.requests("INVITE"))
    for peer in (mobile, desk):
        if peer is not answering:
            night.reply(peer, 486)
    night.reply(answering, 486)
    assert leg.final.status == 486
    assert night.said == ["busy 486"]
    call.acknowledge()
    leg.acknowledge()
    stage.switch.answer(stage.switch.requests("INVITE")[0], 487)
    night.world.run(70)
    assert not any(night.world.leftovers().values())


def test_nobody_wakes_up_behind_freeswitch(tmp_path: Path) -> None:
    stage = Through(tmp_path)
    stage.night.sleeper()
    call = stage.night.call()
    leg = stage.back()
    stage.night.world.run(20)
    assert (leg.final.status, stage.night.said) == (480, ["unavailable 480"])
    call.acknowledge()
    leg.acknowledge()
    stage.switch.answer(stage.switch.requests("INVITE")[0], 487)
    stage.night.world.run(70)
    assert not any(stage.night.world.leftovers().values())
