"""Actions on the media of a call that FreeSWITCH holds: prompts, recordings, digits, detectors (FLOWLANG §4.3).

Such a call has come to FreeSWITCH through `media:`, `relay: {via: …}` or `originate:`. For every other the host refuses
with `call.state`. A step that is cut off (its `timeout:`, the loser of a `parallel`, the end of the call) stops what
FreeSWITCH is doing for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import StepError
from orchestrator.flow.actions.call import LEGS
from orchestrator.flow.language.places import Place
from orchestrator.flow.language.program import Step
from orchestrator.flow.language.registry import ACTIONS, Action, CallChange, Field, Kind
from orchestrator.flow.language.written import level_flaw
from orchestrator.flow.run import effects
from orchestrator.flow.run.step_facts import (
    CollectBegan,
    CollectEnded,
    DetectBegan,
    MediaBegan,
    PlayBegan,
    RecordBegan,
    RecordEnded,
    Stepped,
)
from orchestrator.flow.run.task import Steps, Task

LEG = Field("leg", Kind.ENUM, "Which leg.", values=LEGS)
DETECTORS = ("fax", "beep", "silence", "decision")
COLLECT_TIMEOUT = 5.0
"""Seconds to wait for each key where `collect` does not say."""

ANSWER = ACTIONS.add(
    Action(
        "answer",
        "Answer the caller now (needs FreeSWITCH media).",
        fields=(Field("headers", Kind.MAP, "Header fields to add to the 200.", place=Place.HEADER),),
        needs="call",
        effect=CallChange.ANSWERS,
        waits=True,
    )
)


@ANSWER.performs
def answer(task: Task, step: Step) -> Steps:
    task.trace(step, Stepped("answer"))
    yield effects.Answer(task.values(step, "headers"))


MEDIA = ACTIONS.add(
    Action(
        "media",
        "Anchor the call on a FreeSWITCH server, parked and under control of this flow.",
        short="server",
        fields=(
            Field("server", Kind.SERVER, "FreeSWITCH server, by name.", required=True),
            Field("answer", Kind.BOOLEAN, "Answer the caller at once; early media otherwise."),
        ),
        needs="call",
        effect=CallChange.ANSWERS,
        waits=True,
    )
)


@MEDIA.performs
def media(task: Task, step: Step) -> Steps:
    server, answers = step.args["server"], task.value(step, "answer", False)
    task.trace(step, MediaBegan(server, answers))
    yield effects.Media(server, answers)


PLAY = ACTIONS.add(
    Action(
        "play",
        "Play a file or tone to a leg (FreeSWITCH).",
        short="file",
        fields=(
            Field(
                "file", Kind.TEXT, "File or stream, as FreeSWITCH's playback takes it.", required=True, place=Place.FILE
            ),
            LEG,
            Field("repeat", Kind.NUMBER, "How many times it is played."),
            Field("background", Kind.BOOLEAN, "Go on at once instead of waiting for the end."),
        ),
        needs="call",
        waits=True,
        listens=("execute_done",),
    )
)


@PLAY.performs
def play(task: Task, step: Step) -> Steps:
    file, leg = task.value(step, "file"), step.args.get("leg", "caller")
    repeat = task.value(step, "repeat", 1)
    background = task.value(step, "background", False)
    task.trace(step, PlayBegan(file, leg, background, repeat))
    if repeat < 1:
        return
    yield effects.Play(file, leg, repeat, background)


RECORD = ACTIONS.add(
    Action(
        "record",
        "Record a leg or the whole call (FreeSWITCH).",
        short="file",
        fields=(
            Field("file", Kind.TEXT, "File to write.", required=True, place=Place.FILE),
            Field("max", Kind.DURATION, "Longest recording."),
            Field("silence", Kind.DURATION, "End after that much silence."),
            LEG,
            Field("stop", Kind.TEXT, "Keys that end the recording."),
        ),
        result="recording",
        needs="call",
        waits=True,
        listens=("execute_done", "RECORD_STOP"),
    )
)


@RECORD.performs
def record(task: Task, step: Step) -> Steps:
    effect = effects.Record(
        file=task.value(step, "file"),
        leg=step.args.get("leg", "caller"),
        max=task.value(step, "max"),
        silence=task.value(step, "silence"),
        stop=_keys(task, step, "stop"),
    )
    task.trace(step, RecordBegan(effect.leg, effect.file, effect.silence, effect.stop))
    result: Mapping[str, Any] = yield effect
    task.trace(step, RecordEnded(result["duration"]))
    return result


def _keys(task: Task, step: Step, name: str) -> str:
    """Keys of a telephone, each at most once."""
    keys = str(task.value(step, name, ""))
    if not effects.KEYS.issuperset(keys):
        raise StepError("call.state", f"{name}: {keys!r} are not keys of a telephone (0-9, *, #, A-D)")
    return "".join(dict.fromkeys(keys))


COLLECT = ACTIONS.add(
    Action(
        "collect",
        "Collect digits, optionally playing a prompt.",
        short="max",
        fields=(
            Field("max", Kind.NUMBER, "Most digits.", required=True),
            Field("timeout", Kind.DURATION, "Longest wait for each key."),
            Field("end", Kind.TEXT, "Key that ends the input early."),
            Field("prompt", Kind.TEXT, "File or tone to play first; a key stops it.", place=Place.FILE),
            LEG,
        ),
        result="digits",
        needs="call",
        waits=True,
        listens=("execute_done", "dtmf"),
    )
)


@COLLECT.performs
def collect(task: Task, step: Step) -> Steps:
    effect = effects.Collect(
        max=task.value(step, "max"),
        leg=step.args.get("leg", "caller"),
        timeout=task.value(step, "timeout", COLLECT_TIMEOUT),
        end=_keys(task, step, "end"),
        prompt=task.value(step, "prompt", ""),
    )
    task.trace(step, CollectBegan(effect.max, effect.leg, effect.timeout, effect.prompt, effect.end))
    digits = yield effect
    task.trace(step, CollectEnded(len(digits)))
    return digits


DETECT = ACTIONS.add(
    Action(
        "detect",
        "Start a FreeSWITCH detector; it raises fax_tone, beep, silence or decision events.",
        short="what",
        fields=(
            Field("what", Kind.ENUM, "What to listen for.", required=True, values=DETECTORS),
            LEG,
            Field("for", Kind.DURATION, "How long to listen; a decision is timeout then."),
            Field("silence", Kind.DURATION, "silence and decision: how long nobody speaks, 3s and 800ms."),
            Field("greeting", Kind.DURATION, "decision: who still talks after this is a machine, 3s."),
            Field(
                "level",
                Kind.NUMBER,
                "silence and decision: mean sample (1 to 32767) from which sound counts as speech, 200.",
                check=level_flaw,
            ),
        ),
        needs="call",
        waits=True,
        listens=("execute_done",),
    )
)


@DETECT.performs
def detect(task: Task, step: Step) -> Steps:
    what = step.args["what"]
    effect = effects.Detect(
        what,
        step.args.get("leg", "callee" if what in ("beep", "decision") else "caller"),
        task.value(step, "for"),
        task.value(step, "silence"),
        task.value(step, "greeting"),
        task.value(step, "level"),
    )
    if effect.level is not None and level_flaw(str(effect.level)) is not None:
        raise StepError("expr.value", f"detect: {effect.level} is not a level")
    task.trace(step, DetectBegan(what, effect.leg, effect.seconds))
    yield effect
