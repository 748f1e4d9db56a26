"""The ways through the program stay straight: calls that go up are counted, so are look-ups done twice."""

from __future__ import annotations

import pytest

from tools.journeys import JOURNEYS, RELAY, Profile, main, registration

pytestmark = pytest.mark.plain("counts calls of Python's functions")

MOST_UP = {
    "INVITE without a flow": 0,
    "INVITE through relay: registered": 8,
    "DTMF, hangup, two BYEs": 5,
    "REGISTER, stored, late branch": 6,
}
"""Journey → calls from a package up to one that may import it. What goes up is a call back: an event, an effect, what a
branch reports."""


@pytest.mark.parametrize("name", JOURNEYS)
def test_few_calls_go_up(name: str) -> None:
    way = JOURNEYS[name]()
    assert way.down.total() > 20, "it has gone its way"
    assert way.up.total() <= MOST_UP[name], dict(way.up)


def test_the_journeys_end_where_they_say() -> None:
    assert "core.calls.call.Call.on_sent" in JOURNEYS["INVITE through relay: registered"]().functions
    assert JOURNEYS["DTMF, hangup, two BYEs"]().functions["sip.in_dialog.send_in_dialog"] == 2
    late = JOURNEYS["REGISTER, stored, late branch"]().functions
    assert "sip.location.Location.apply" in late and "core.calls.call.Call.on_sent" in late


def test_a_registration_works_its_address_out_once_and_looks_its_bindings_up_once() -> None:
    functions = registration(RELAY).functions
    assert functions["sip.location.Location.apply"] == 1
    assert functions["sip.network.SipNetwork.aor"] == 1
    assert functions["sip.uri.Uri.aor"] <= 1  # the network remembers what it has worked out
    assert functions["sip.location.Location.bindings"] == 1
    assert functions["sip.headers.parse_contacts"] == 1


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("-v") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in JOURNEYS)
    assert Profile().way.up.total() == 0
