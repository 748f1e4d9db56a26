"""The defects of greenswitch 0.0.19 one by one: what ours does, and that stock still does what is said of it.

The numbers are those of the list they were found under; 17 and 18 are those of its outbound sessions and server.
Stock runs in processes of their own, since some of these freeze the whole loop or end it. Where a newer greenswitch
has mended one, its `stock` column is what has to change.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import greenswitch_scenarios
import pytest

ROOT = Path(__file__).parents[2]
DOWN = "NotConnectedError"
DEFECTS = [
    # number, scenario, ours, stock
    (1, "forged_header", "a CHANNEL_CREATE", "a DTMF"),
    (1, "line_separator_in_value", "one value", "forged"),
    (2, "body_of_an_event", "mine", "victim"),
    (3, "json_events", "delivered", "lost"),
    (4, "end_inside_a_body", "ends", "freezes"),
    (5, "drop_while_a_command_waits", DOWN, "hangs"),
    (5, "drop_behind_events", "all delivered", "most lost"),
    (5, "drop_is_told", "told", "silent"),
    (6, "peer_says_nothing", DOWN, "hangs"),
    (6, "peer_closes_before_the_greeting", DOWN, "hangs"),
    (7, "frame_without_a_type", "goes on", "zombie"),
    (7, "reply_nobody_asked_for", "goes on", "zombie"),
    (7, "body_that_is_no_utf8", "goes on", "zombie"),
    (7, "length_that_is_none", "ends", "zombie"),
    (8, "wrong_password", f"{DOWN}, clean", "ValueError, leaks"),
    (9, "second_connect", DOWN, "hangs"),
    (10, "long_command", "returns", "hangs"),
    (11, "hidden_second_command", "EslInjection, 0 commands", "returns, 2 commands"),
    (11, "reply_never_comes", "EslTimeout", "hangs"),
    (12, "frame_after_a_linger_notice", "goes on", "zombie"),
    (13, "stop_inside_a_handler", "returns", "hangs"),
    (13, "stop_before_connect", "returns", "AttributeError"),
    (14, "nameless_handler_that_raises", "goes on", "dispatcher dead"),
    (15, "ipv6", "returns", "gaierror"),
    (15, "server_on_ipv6", "returns", "SystemExit"),
    (16, "undefined_value", "''", "'_undef_'"),
    (0, "one_playback", "mine", "mine"),  # stock can do it: what it fails at below is not for the asking
    (17, "handler_of_ones_own", "mine", "hangs"),
    (17, "playback_of_somebody_else", "mine", "theirs"),
    (17, "playback_during_an_application", "15000", "hangs"),
    (17, "three_playbacks_at_once", "a b c", "a b a"),
    (17, "playback_after_one_that_timed_out", "b", "hangs"),
    (18, "address_in_use", "ListenError", "SystemExit"),
    (18, "two_at_once_where_one_may", "1 at once", "2 at once"),
    (18, "time_to_accept", "at once", "late"),
    (18, "lingering", "linger 5", "linger"),
    (19, "stop_at_once", "at once", "late"),
    (20, "connection_refused", DOWN, "ConnectionRefusedError"),
    (0, "star_beside_a_specific_handler", "called", "left out"),
]
IDS = [f"{number}-{name}" for number, name, _, _ in DEFECTS]


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def stock() -> Iterator[Callable[[str], str]]:
    """How stock greenswitch fares in a scenario; each test waits for its own only."""
    command = [sys.executable, greenswitch_scenarios.__file__, *(name for _, name, _, _ in DEFECTS)]
    told: dict[str, str] = {}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout

        def outcome(name: str) -> str:
            while name not in told:
                line = lines.readline()
                assert line, f"nothing was said about {name}"
                scenario, _, told[scenario] = line.rstrip("\n").partition(" ")
            return told[name]

        yield outcome
        process.terminate()


def test_every_scenario_is_in_the_table() -> None:
    assert {name for _, name, _, _ in DEFECTS} == set(greenswitch_scenarios.SCENARIOS)


def test_every_number_of_the_list_is_in_the_table() -> None:
    assert {number for number, _, _, _ in DEFECTS} >= set(range(1, 21))


@pytest.mark.parametrize(("number", "name", "ours", "_"), DEFECTS, ids=IDS)
def test_ours(number: int, name: str, ours: str, _: str) -> None:
    if "ipv6" in name and not has_ipv6():
        pytest.skip("no IPv6 on loopback")
    assert greenswitch_scenarios.run(name, stock=False) == ours


@pytest.mark.slow
@pytest.mark.skipif(version("greenswitch") != "0.0.19", reason="the list is of greenswitch 0.0.19")
@pytest.mark.parametrize(("number", "name", "_", "theirs"), DEFECTS, ids=IDS)
def test_stock(stock: Callable[[str], str], number: int, name: str, _: str, theirs: str) -> None:
    if "ipv6" in name and not has_ipv6():
        pytest.skip("no IPv6 on loopback")
    assert stock(name) == theirs
