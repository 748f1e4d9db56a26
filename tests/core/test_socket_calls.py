"""Calls that a dialplan hands over, in a World: the trigger, what the flow sees and does, and every way it ends."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from orchestrator.core.jobs import Job
from orchestrator.core.settings import CoreLimits
from orchestrator.errors import InputError, StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.effects import EslCommand, EslExecute, Log
from orchestrator.testing.recordings import Recording, block_of, rewrite
from orchestrator.testing.world import World

FIXTURES = Path(__file__).parents[1] / "fixtures" / "esl"
RECORDING = Recording.load(FIXTURES / "dtmf.esl")
UUID = RECORDING.find("CHANNEL_CREATE").uuid
NAME = "socket:1"


def program(steps: str, on: str = "{socket: '*'}", more: str = "") -> Program:
    text = f"flowlang: 1\nflows:\n  main:\n    on: {on}\n{indent(dedent(more), '    ')}    do:\n"
    return load_sources([Source("s.flow.yaml", text + indent(dedent(steps).strip(), "      ") + "\n")])[0]


def refusal(steps: str, on: str = "{socket: '*'}") -> list[str]:
    with pytest.raises(InputError) as refused:
        program(steps, on)
    return [f"{d.code} {d.message}" for d in refused.value.diagnostics]


def channel_data(**headers: str | None) -> EslEvent:
    """A recorded CHANNEL_CREATE as the answer to `connect`: an inbound channel for 4711."""
    given: dict[str, str | None] = {
        "Event-Name": "CHANNEL_DATA", "Event-Sequence": None, "Call-Direction": "inbound", "Answer-State": "ringing",
        "Caller-Destination-Number": "4711", "Caller-Caller-ID-Number": "1000", "Caller-Caller-ID-Name": "Bob",
        "Caller-Network-Addr": "192.0.2.7", "variable_sip_from_host": None, "variable_sip_h_X-Shop": "7",
    }  # fmt: skip
    given |= {name.replace("__", "-"): value for name, value in headers.items()}
    return EslEvent.plain(rewrite(block_of(RECORDING.find("CHANNEL_CREATE")), given))


class Handed:
    """A World with one channel on a socket; applications and commands end at once unless they are in `slow`."""

    def __init__(self, program: Program, data: EslEvent | None = None) -> None:
        self.world = World(program)
        self.logs: list[str] = []
        self.jobs: list[Any] = []
        self.slow: set[str] = set()
        self.variables: dict[str, str] = {}
        self.refused = 0
        self.world.on_job = self._do
        self.world.engine.host.on_log = self._log
        self.sequence = 900_000
        self.world.engine.socket_opened(NAME, data or channel_data(), self._refuse, 0.0)
        self.world.run()

    def _refuse(self) -> None:
        self.refused += 1

    def _log(self, run: object, effect: Log) -> None:
        self.logs.append(effect.text)

    def _do(self, job: Job) -> Any:
        self.jobs.append(job.effect)
        if isinstance(job.effect, EslExecute):
            assert (job.effect.server, job.effect.uuid) == (NAME, UUID)
            done = {"response": "FILE PLAYED" if job.effect.app == "playback" else "", "variables": self.variables}
            return World.LATER if job.effect.app in self.slow else done
        return {"ok": True, "text": "+OK"}

    @property
    def did(self) -> list[str]:
        return [f"{e.app} {e.args}".strip() if isinstance(e, EslExecute) else e.command for e in self.jobs]

    def hear(self, key: str, server: str = NAME, **headers: str | None) -> None:
        self.sequence += 1
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        block = rewrite(
            block_of(RECORDING.find(key)), {"Event-Sequence": str(self.sequence), "Unique-ID": UUID, **given}
        )
        self.world.engine.receive_esl(server, EslEvent.plain(block), self.world.now)
        self.world.run()

    def close(self) -> None:
        self.world.engine.socket_closed(NAME, "FreeSWITCH closed the connection", self.world.now)
        self.world.run()

    def nothing_left(self) -> bool:
        engine = self.world.engine
        return not (any(self.world.leftovers().values()) or len(engine.sockets) or len(engine.channels))


SEES = """
- log: '${call.from.user} ${call.from.display} ${call.from.host} ${call.to.user} ${call.target.user} ${call.state}'
- log: '${call.source_ip} ${call.headers["x-shop"] ?? "-"} ${call.fs.caller ?? "-"} ${call.fs.server ?? "-"}'
"""


def test_a_flow_sees_what_freeswitch_says_of_the_channel() -> None:
    handed = Handed(program(SEES))
    assert handed.logs == ["1000 Bob 192.0.2.7 4711 4711 new", f"192.0.2.7 7 {UUID} {NAME}"]
    assert not handed.refused


@pytest.mark.parametrize(
    ("pattern", "taken"), [("*", True), ("4711", True), ("47*", True), ("471?", True), ("48*", False), ("471", False)]
)
def test_the_pattern_is_over_the_dialled_number(pattern: str, taken: bool) -> None:
    handed = Handed(program("- log: here", f"{{socket: '{pattern}'}}"))
    assert (handed.logs == ["here"]) is taken
    assert handed.refused == (not taken)


def test_a_number_as_pattern_needs_no_quotes() -> None:
    assert Handed(program("- log: here", "{socket: 4711}")).logs == ["here"]


def test_when_decides_after_the_pattern() -> None:
    assert Handed(program("- log: a", more="when: call.from.user == '1000'\n")).logs == ["a"]
    assert Handed(program("- log: a", more="when: call.from.user == '1001'\n")).refused == 1


def test_a_refused_channel_leaves_nothing_behind() -> None:
    handed = Handed(program("- log: a", "{socket: '9*'}"))
    handed.close()
    assert handed.nothing_left()
    assert handed.world.engine.counters["socket.refused"] == 1


def test_a_program_without_such_flows_refuses() -> None:
    assert Handed(program("- reply: 486", "invite")).refused == 1


def test_a_server_that_drains_refuses() -> None:
    world = World(program("- log: a"))
    world.engine.drain(0.0)
    told: list[int] = []
    world.engine.socket_opened(NAME, channel_data(), lambda: told.append(1), 0.0)
    assert told == [1]


@pytest.mark.parametrize("limit", ["runs", "runs_per_flow"])
def test_a_channel_beyond_the_bound_of_runs_is_refused(limit: str) -> None:
    """The dialplan goes on by itself, as it does when no flow takes the channel."""
    world = World(program("- sleep: 60s"), limits=CoreLimits(**{limit: 2}))
    refused: list[int] = []
    for number in range(4):
        data = channel_data(Unique__ID=f"0000000{number}-0000-4000-8000-000000000000")
        world.engine.socket_opened(f"socket:{number}", data, lambda number=number: refused.append(number), world.now)
        world.run()
    assert refused == [2, 3] and len(world.engine.flows.runs) == 2
    assert world.engine.flows.stats.refused == 2
    world.engine.socket_closed("socket:0", "gone", world.now)
    world.run(6.0)
    data = channel_data(Unique__ID="00000009-0000-4000-8000-000000000000")
    world.engine.socket_opened("socket:9", data, lambda: refused.append(9), world.now)
    assert refused == [2, 3], "room again"


@pytest.mark.parametrize("uuid", ["a b", "x;y'z", "${domain}", ""])
def test_a_uuid_no_command_may_hold_is_refused(uuid: str) -> None:
    assert Handed(program("- log: a"), channel_data(Unique__ID=uuid)).refused == 1


def test_odd_numbers_and_hosts_make_addresses_all_the_same() -> None:
    odd = {"Caller-Caller-ID-Number": "a b\n<c>@", "Caller-Network-Addr": "no host/", "Caller-Caller-ID-Name": 'ä"\n'}
    odd["variable_sip_from_host"] = "\u00e4"
    data = channel_data(**{name.replace("-", "__"): value for name, value in odd.items()})
    handed = Handed(program("- log: '${call.from.user}|${call.from.host}|${call.from.uri}'"), data)
    assert handed.logs == ["a b\\n<c>@|example.com|sip:a%20b%0A%3Cc%3E%40@example.com"]


MENU = """
- answer
- play: /hello.wav
- collect: {max: 2, timeout: 3s}
  as: keys
- log: 'keys ${keys}'
- hangup: {reason: enough, code: 486}
"""


def test_answer_play_collect_hangup_go_to_the_channel() -> None:
    handed = Handed(program(MENU))
    for digit in "47":
        handed.hear("DTMF", DTMF_Digit=digit)
    assert handed.logs == ["keys 47"]
    assert handed.did[:3] == ["answer", "playback /hello.wav", "playback silence_stream://-1"]
    assert handed.did[-1] == f"uuid_kill {UUID} USER_BUSY"
    assert [e.server for e in handed.jobs if isinstance(e, EslCommand)] == [NAME]
    handed.close()
    assert handed.nothing_left()


WAITS = """
- subscribe: hangup
  do: [{log: 'hung ${event.leg} ${event.cause}'}]
- wait: dtmf
  timeout: 10s
  as: key
- log: 'digit ${key.digit}'
- fs.execute: {app: sleep, args: '100000'}
"""


def test_digits_and_the_hangup_of_the_channel_reach_the_flow() -> None:
    handed = Handed(program(WAITS, more='on_end: [{log: \'end ${call.ended_by ?? ""} ${call.end_reason ?? ""}\'}]\n'))
    handed.slow.add("sleep")
    handed.hear("DTMF", DTMF_Digit="7")
    assert handed.logs == ["digit 7"]
    handed.hear("CHANNEL_HANGUP_COMPLETE", Hangup_Cause="NORMAL_CLEARING")
    handed.hear("CHANNEL_DESTROY")
    assert handed.logs == ["digit 7", "hung caller NORMAL_CLEARING", "end caller NORMAL_CLEARING"]
    handed.close()
    assert handed.nothing_left()


def test_the_same_event_over_a_link_is_not_heard_twice() -> None:
    handed = Handed(program("- subscribe: dtmf\n  do: [{log: '${event.digit}'}]\n"))
    handed.hear("CHANNEL_CREATE", server="fs1", Call_Direction="inbound")
    handed.hear("DTMF", server="fs1", DTMF_Digit="7")
    handed.hear("DTMF", DTMF_Digit="7")
    assert handed.logs == ["7"]
    handed.hear("CHANNEL_DESTROY", server="fs1")
    assert len(handed.world.engine.flows.runs) == 1, "only the connection itself says when its channel ends"


def test_the_answer_is_an_event_and_a_state() -> None:
    handed = Handed(program("- wait: answered\n  timeout: 5s\n- log: '${call.state} ${string(call.answered)}'"))
    handed.hear("CHANNEL_ANSWER")
    assert handed.logs == ["answered true"]


def test_the_end_of_the_connection_ends_the_flow() -> None:
    handed = Handed(program("- wait: dtmf\n  timeout: 1h", more="on_end: [{log: 'end ${call.end_reason ?? \"\"}'}]\n"))
    handed.close()
    assert handed.logs == ["end FreeSWITCH closed the connection"]
    assert handed.nothing_left()
    handed.close()  # once more changes nothing
    assert len(handed.logs) == 1


def test_a_flow_that_fails_hangs_up() -> None:
    handed = Handed(program("- wait: dtmf\n  timeout: 1s"))
    handed.world.run(2.0)
    assert handed.did == [f"uuid_kill {UUID} NORMAL_TEMPORARY_FAILURE"]
    handed.close()
    assert handed.nothing_left()


def test_a_call_has_an_end_even_if_nobody_hangs_up() -> None:
    handed = Handed(program("- log: a"))
    handed.world.run(handed.world.settings.limits.call_duration + 1)
    assert handed.did == [f"uuid_kill {UUID} NORMAL_CLEARING"]


@pytest.mark.parametrize(
    "step", ["relay: registered", "inject: 'sip:a@b'", "cancel: [all]", "transfer: 'sip:a@b'", "originate: 'sip:a@b'"]
)
def test_steps_that_need_sip_are_refused_at_load(step: str) -> None:
    name = step.split(":")[0]
    assert f"E303 {name}: needs a SIP call, but this flow runs on socket" in refusal(f"- {step}")


def test_reply_and_register_are_refused_at_load() -> None:
    assert refusal("- reply: 486") == ["E303 reply: needs a request to answer, but this flow runs on socket"]


def test_a_called_flow_demands_sip_of_its_callers() -> None:
    sub = "  sub:\n    do: [{relay: registered}]\n"
    text = f"flowlang: 1\nflows:\n  main:\n    on: {{socket: '*'}}\n    do: [{{call: sub}}]\n{sub}"
    with pytest.raises(InputError) as refused:
        load_sources([Source("s.flow.yaml", text)])
    assert any("needs a SIP call" in d.message for d in refused.value.diagnostics)
    load_sources([Source("s.flow.yaml", text.replace("{socket: '*'}", "invite"))])


@pytest.mark.parametrize("on", ["{socket: ''}", "{socket: [1]}", "{socket: '*', every: 3s}"])
def test_a_trigger_without_a_pattern_is_refused(on: str) -> None:
    assert [line[:4] for line in refusal("- log: a", on)] == ["E103"]


def test_an_application_that_fails_is_an_error_of_the_flow() -> None:
    handed = Handed(program("- wait: dtmf\n  timeout: 9s\n- play: /a.wav\n  on_error: [{log: '${error.type}'}]"))
    handed.world.on_job = lambda job: StepError("esl.down", "gone")
    handed.hear("DTMF")
    assert handed.logs == ["esl.down"]
