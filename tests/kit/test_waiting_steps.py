"""What explain and the trace say of a run that waits, whatever it waits for, and of keys that nobody wanted."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli.explain import _described
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.tools.explain import waiting
from orchestrator.testing.facts import EslRule, HttpRule
from orchestrator.testing.scenario import Scenario

HEAD = """\
flowlang: 1
freeswitch: {fs1: {host: h, password: p}}
flows:
  main:
    on: invite
    do:
"""
HELD = "      - media: {server: fs1, answer: true}\n"
BOB = {"bob@example.com": ["bob@10.0.0.5"]}


def story(*steps: str) -> Scenario:
    """A call that has begun at 0s and whose flow has come to its first wait behind what takes no time."""
    text = HEAD + "".join(f"      {step}\n" if not step.startswith(" ") else step for step in steps)
    scene = Scenario(
        load_sources([Source("a.flow.yaml", text)])[0],
        registered=BOB,
        sounds={"*": 30.0},
        http=[HttpRule("*", delay=30.0)],
        esl=[EslRule("slow *")],
    )
    scene.at(0.0, lambda: scene.invite("alice@example.com", "bob@example.com"))
    scene.run_until(1.0)
    return scene


def waits(scene: Scenario, target: str = "") -> list[dict[str, Any]]:
    return waiting(scene.world.engine.flows, target, scene.world.now)


@pytest.mark.parametrize(
    ("steps", "what", "left"),
    [
        (["- relay: registered"], "an answer of those called", None),
        (
            ["- relay: {to: registered, ring: 9s, via: fs1}"],
            "an answer of those called through fs1, who ring for 9s",
            None,
        ),
        ([HELD, "- collect: {max: 4, end: '#'}"], "up to 4 keys of the caller, 5s for each, # ends it", None),
        ([HELD, "- play: {file: a.wav, repeat: 2}"], "the end of what is played to the caller, 2 times", None),
        ([HELD, "- record: {file: /tmp/a.wav, max: 20s}"], "the end of the recording of caller", 19.0),
        ([HELD, "- fs.execute: {app: playback, args: a.wav, wait: true}"], "the end of playback on the caller", None),
        (["- sleep: 7s"], "the end of the pause", 6.0),
        (["- repeat: {times: 2, every: 8s, do: [log: x]}"], "the next pass", 7.0),
        (["- parallel: [[{sleep: 3s}], [log: x]]"], "its branches", None),
        (["- http: {url: 'https://a.example/?k=secret', timeout: 11s}"], "the answer to GET", 10.0),
    ],
)
def test_each_step_that_waits(steps: list[str], what: str, left: float | None) -> None:
    first = waits(story(*steps))[0]
    assert (first["kind"], first["waits_for"]) == ("step", what)
    assert first["expires_in"] == left
    assert first["since"] <= 1.0 and first["file"] == "a.flow.yaml"
    text = "\n".join(_described(first))
    assert what in text and f"a.flow.yaml:{first['line']}" in text


def test_a_detector_that_starts_and_a_transfer() -> None:
    scene = story(HELD, "- detect: {what: beep, leg: caller}")
    assert all(entry["kind"] == "step" for entry in waits(scene))


def test_an_event_is_listed_once() -> None:
    scene = story("- wait: dtmf\n        meanwhile: [sleep: 30s]")
    assert [(entry["kind"], entry["name"]) for entry in waits(scene)] == [
        ("wait", "main#1/dtmf"),
        ("step", "main#1/sleep"),
    ]


@pytest.mark.parametrize("target", ["main", "main#1", "nap", "main#1/nap"])
def test_a_step_is_found_by_its_names(target: str) -> None:
    scene = story("- sleep: 7s\n        id: nap")
    assert [entry["name"] for entry in waits(scene, target)] == ["main#1/nap"]
    assert waits(scene, "other") == []


def test_a_run_that_has_ended_waits_for_nothing() -> None:
    scene = story("- sleep: 7s")
    scene.finish()
    assert waits(scene) == []


# --- keys -------------------------------------------------------------------------------------------------------------


def traced(scene: Scenario) -> list[str]:
    scene.run_until(scene.world.now)
    return [record.text for run in scene.runs for record in run.records if "ignored" in record.text]


def test_a_key_in_sip_info_that_no_step_takes() -> None:
    scene = story("- relay: registered", "- sleep: 30s")
    scene.at(1.0, lambda: scene.respond("bob@*", 200))
    scene.at(2.0, lambda: scene.press("caller", "5"))
    scene.run_until(3.0)
    assert traced(scene) == ["key 5 of the caller ignored: no step takes it now"]


def test_a_key_before_collect_is_told_and_one_that_is_collected_is_not() -> None:
    scene = story(HELD, "- sleep: 4s", "- collect: {max: 2}\n        as: keys", "- log: ${keys}", "- sleep: 30s")
    for at, key in ((2.0, "1"), (5.0, "2"), (5.5, "3"), (8.0, "4")):
        scene.at(at, lambda key=key: scene.press("caller", key))  # type: ignore[misc]
    scene.run_until(9.0)
    assert scene.logs[-1][2] == "23"
    assert traced(scene) == [
        "key 1 of the caller ignored: no step takes it now",
        "key 4 of the caller ignored: no step takes it now",
    ]


def test_the_key_of_the_other_side_and_one_that_does_not_fit() -> None:
    scene = story(
        "- relay: {to: registered, via: fs1, keep_open: 1s}",
        "- wait: dtmf\n        where: event.leg == 'callee' and event.digit == '2'",
        "- log: pressed",
    )
    scene.at(1.0, lambda: scene.respond("bob@*", 200))
    for at, side, key in ((2.0, "caller", "2"), (3.0, "callee", "7"), (4.0, "callee", "2")):
        scene.at(at, lambda side=side, key=key: scene.press(side, key))  # type: ignore[misc]
    scene.run_until(5.0)
    assert [log[2] for log in scene.logs] == ["pressed"]
    assert traced(scene) == [
        "key 2 of the caller ignored: no step takes it now",
        "key 7 of the callee ignored: no step takes it now",
    ]
