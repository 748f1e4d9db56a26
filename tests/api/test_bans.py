"""Bans over the admin interface: listed with their times, ended by a DELETE, told to the log."""

from __future__ import annotations

import pytest

from orchestrator.sip.admission import BAN_AFTER, Admission, Source, SourceLimits
from orchestrator.testing.api_stage import ApiStage


def flood(admission: Admission, host: str, now: float) -> None:
    for _ in range(BAN_AFTER + 300):
        source = admission.admit(host, now)
        if source is not None:
            admission.charge(source, 5.0, now)


@pytest.fixture
def stage() -> ApiStage:
    return ApiStage(sources=SourceLimits(strangers=1_000_000.0))


@pytest.mark.parametrize(
    ("host", "name"), [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2::7", "2001:db8:1:2::/64")]
)  # fmt: skip
def test_a_ban_is_told_listed_and_ended(stage: ApiStage, host: str, name: str) -> None:
    admission, now = stage.world.engine.admission, stage.world.now
    told: list[Source] = []
    admission.on_ban = told.append
    assert stage.items("bans") == []
    flood(admission, host, now)
    assert [source.name for source in told] == [name], "once"
    (ban,) = stage.items("bans")
    assert (ban["source"], ban["class"]) == (name, "stranger")
    assert (ban["since"], ban["until"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:01:00.000Z")
    assert admission.admit(host, now) is None
    assert stage.ask("DELETE", f"bans?source={host}").status_code == 204
    assert admission.admit(host, now) is not None
    assert stage.items("bans") == []
    again = stage.ask("DELETE", f"bans?source={name}")
    assert (again.status_code, again.json["code"]) == (404, "ban.unknown")


@pytest.mark.parametrize("query", ["", "?source=", "?source=a&source=b", "?address=192.0.2.7", "?source=a%0Ab"])
def test_odd_deletions_are_refused(stage: ApiStage, query: str) -> None:
    answer = stage.ask("DELETE", f"bans{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "query.invalid")


def test_nothing_else_writes(stage: ApiStage) -> None:
    assert stage.ask("POST", "bans?source=192.0.2.7").status_code == 405


def test_a_ban_ends_by_itself_and_a_new_one_is_told() -> None:
    admission = Admission(SourceLimits(strangers=1_000_000.0, ban=10.0), lambda host: False)
    told: list[Source] = []
    admission.on_ban = told.append
    flood(admission, "192.0.2.7", 0.0)
    assert len(admission.banned(9.0)) == 1 and admission.banned(10.5) == []
    assert not admission.lift("192.0.2.7", 10.5)
    flood(admission, "192.0.2.7", 11.0)
    assert len(told) == 2
