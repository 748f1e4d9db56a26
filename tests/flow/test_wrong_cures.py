"""Mistakes that people bring from elsewhere, each with the one cure that works."""

from __future__ import annotations

import pytest
from flowcheck import diagnose, steps

from orchestrator.flow.language.yaml import parse


def the_help(text: str) -> str:
    (found,) = diagnose(text)
    return found.help


@pytest.mark.parametrize(
    ("step", "help"),
    [
        ("- reply: 486 Busy Here", "write {code: 486, reason: Busy Here}"),
        ("- reply: SIP/2.0 486 Busy Here", "write {code: 486, reason: Busy Here}"),
        ("- reply: {code: '486, Busy'}", "write {code: 486, reason: Busy}"),
        ("- reply: Not Found", "write 404"),
        ("- reply: busy", "write 486"),
        ("- reply: 99", "write a number, for example 486"),
        ("- sleep: 5 sec", "write 5s"),
        ("- sleep: 1h30m", "write 90m"),
        ("- sleep: '00:01:30'", "write 90s"),
        ("- sleep: PT2M", "write 2m"),
        ("- sleep: 2 days", "write 48h"),
        ("- sleep: 1,5s", "write 1.5s"),
        ("- sleep: 0.5", "write 0.5s"),
        (
            "- relay: +49301234",
            "a number alone names no server: write 'sip:+49301234@host', or send the call to gateways:",
        ),
        (
            "- relay: 'tel:+49 30 1234'",
            "a number alone names no server: write 'sip:+49301234@host', or send the call to gateways:",
        ),
        ("- relay: 'sips:bob@h'", "add tls:0.0.0.0:5061 to listen:"),
        ("- relay: 'sip:bob@h;transport=tcp'", "add tcp:0.0.0.0:5060 to listen:, or write sip:bob@h"),
        ("- relay: ['sip:a@h', 'sip:bob@h;transport=TLS;x=y']", "add tls:0.0.0.0:5061 to listen:"),
        ("- relay: 'sip:${call.to.user}@h;transport=ws'", ""),
        ("- hangup: 486", "write  hangup: {code: 486}"),
        ("- hangup: '486 Busy Here'", "write  hangup: {code: 486, reason: Busy Here}"),
        ("- hangup: {reason: SIP/2.0 603 Decline}", "write  hangup: {code: 603, reason: Decline}"),
        ("- relay: <sip:bob@h>", "write 'sip:bob@h'"),
        ("- relay: user/1000", "this is a dial string of FreeSWITCH: use registered, original, a sip: URI, or ${...}"),
        ("- if: call.answered\n  then: relay registered", "write  [relay: registered]"),
        ("- if: call.answered\n  then: stop", "write  [stop]"),
        ("- if: call.answered\n  then: relay", "write  [relay: ...]"),
    ],
)
def test_values(step: str, help: str) -> None:
    assert the_help(steps(step)) == help


@pytest.mark.parametrize(
    ("step", "help"),
    [
        ("- if: call.answered\n  then: relay: registered", "steps are a list: write  then: [relay: registered]"),
        ("- if: call.answered\n  then: reply: 404\n  else: stop", "steps are a list: write  then: [reply: 404]"),
        ("- relay: registered\n  on: {else: reply: 404}", "steps are a list: write  else: [reply: 404]"),
        (
            "- relay: registered\n  on: {busy: reply: {code: 486}}",
            "steps are a list: write  busy: [reply: {code: 486}]",
        ),
        ("- subscribe: dtmf\n  do: hangup: ${event.digit}", "steps are a list: write  do: [hangup: ${event.digit}]"),
        (
            "- if: call.answered\n  then: - relay: registered",
            "a list begins in the line below its key, or write  then: [relay: registered]",
        ),
    ],
)
def test_steps_behind_a_key(step: str, help: str) -> None:
    assert the_help(steps(step)) == help


@pytest.mark.parametrize("blank", ["\xa0", "\u202f", "\u2003", "\u3000"])
@pytest.mark.parametrize(
    "step",
    ["- relay:{}registered", "-{}relay: registered", "- relay: registered{}", "{}- stop", "- sleep: 5{}s", "- stop{}"],
)
def test_a_blank_that_is_none_is_named(step: str, blank: str) -> None:
    found = diagnose(steps(step.format(blank)))
    assert found and f"(U+{ord(blank):04X})" in found[0].help and "ordinary space" in found[0].help


def test_a_long_value_of_an_author_costs_no_time() -> None:
    """Patterns of helps meet whatever stands in a file."""
    for text in ("a" * 60_000, "1" * 60_000, "sip:" * 15_000, "{{" + " " * 60_000, "$(" * 30_000, "a " * 30_000 + "=~"):
        diagnose(steps(f"- log: '{text}'\n- sleep: '{text}'\n- relay: '{text}'\n- log: x\n  if: '{text}'"))
        parse("x", f"a: b: {text}")
