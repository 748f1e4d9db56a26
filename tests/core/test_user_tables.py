"""User tables that are not files: asked in a job, kept for a time, shared by those who wait, and away at times."""

from __future__ import annotations

from typing import Any

import pytest
from test_auth import MD5_OF_ALICE, Stage, reply, sign

from orchestrator.core.jobs import FindUser, Job
from orchestrator.core.settings import AuthPolicy, UserCachePolicy
from orchestrator.core.users import AskedUsers, HttpUsers, hashes_of
from orchestrator.errors import StepError
from orchestrator.flow.run.effects import Http
from orchestrator.sip.digest import Secret
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

DATABASE = AskedUsers("local", "a database", 3.0)
ALICE = Secret("wonder")
DOWN = StepError("auth.down", "connection refused")


class Tables(Stage):
    """`answer` is what the database says; None in place of it: later, by `say`."""

    def __init__(self, answer: Any = ALICE, **cache: Any) -> None:
        super().__init__(DATABASE, auth=AuthPolicy(cache=UserCachePolicy(**cache)))
        self.answer = answer
        self.world.on_job = self._on_job
        self._number = 10

    def _on_job(self, job: Job) -> Any:
        return self.answer if isinstance(job.effect, FindUser) else World.LATER

    @property
    def asked(self) -> list[FindUser]:
        return [job.effect for job in self.world.jobs if isinstance(job.effect, FindUser)]

    def log_in_again(self, user: str = "alice", password: str = "wonder") -> int:
        self._number += 2
        first = self.register(self.alice, user=user, cseq=self._number).final
        again = self.register(self.alice, sign(first, user, password), user=user, cseq=self._number + 1)
        return again.statuses[-1] if again.statuses else 0

    def say(self, result: Any, job: int = -1) -> None:
        jobs = [one for one in self.world.jobs if isinstance(one.effect, FindUser)]
        self.world.engine.complete(jobs[job].id, result, self.world.now)
        self.world.run()

    def count(self, name: str) -> int:
        return self.world.engine.counters[name]


# --- kept -------------------------------------------------------------------------------------------------------------


def test_a_user_is_asked_about_once_and_kept_for_a_time() -> None:
    stage = Tables(keep=60.0)
    assert [stage.log_in_again() for _ in range(5)] == [200] * 5
    (asked,) = stage.asked
    assert (asked.table, asked.user, asked.realm, asked.timeout) == ("local", "alice", "example.com", 3.0)
    assert stage.count("auth.cached") == 4
    stage.world.run(61.0)
    assert stage.log_in_again() == 200 and len(stage.asked) == 2


def test_that_somebody_is_not_there_is_kept_for_a_shorter_time() -> None:
    stage = Tables(None, absent=10.0)
    assert [stage.log_in_again() for _ in range(3)] == [401] * 3
    assert len(stage.asked) == 1
    stage.answer = ALICE
    stage.world.run(8.0)
    assert stage.log_in_again() == 401 and len(stage.asked) == 1
    stage.world.run(3.0)
    assert stage.log_in_again() == 200


def test_nothing_is_kept_where_that_is_asked_for() -> None:
    stage = Tables(keep=0.0)
    assert [stage.log_in_again() for _ in range(3)] == [200] * 3
    assert len(stage.asked) == 3


def test_a_new_password_is_good_at_once_and_wrong_ones_ask_no_more_often_than_they_may() -> None:
    stage = Tables(keep=600.0)
    assert stage.log_in_again() == 200
    stage.answer = Secret("changed")
    stage.world.run(6.0)
    assert stage.log_in_again(password="changed") == 200
    assert len(stage.asked) == 2
    assert [stage.log_in_again(password="guess") for _ in range(5)] == [401] * 5
    assert len(stage.asked) == 2, "within five seconds it is not asked again"


def test_names_that_are_made_up_push_nobody_out() -> None:
    stage = Tables(users=3)
    assert stage.log_in_again() == 200
    stage.answer = None
    for number in range(10):
        assert stage.log_in_again(user=f"nobody{number}") == 401
    cache = stage.world.engine.steps.authenticator._users
    assert len(cache) == 1 + 3
    asked = len(stage.asked)
    assert stage.log_in_again() == 200 and len(stage.asked) == asked


@pytest.mark.parametrize("user", ["a" * 300, "al\tice", "al\x7fice"])
def test_what_is_no_name_is_not_asked_about(user: str) -> None:
    stage = Tables()
    first = stage.register(stage.alice).final
    assert stage.register(stage.alice, sign(first, user, "wonder"), cseq=2).statuses[-1] in (400, 401)
    assert stage.asked == []


# --- away -------------------------------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_answered_503_never_403() -> None:
    stage = Tables(DOWN)
    assert stage.log_in_again() == 503
    assert stage.bindings == [] and stage.logged == []
    stage.answer = ALICE
    assert stage.log_in_again() == 200, "that it was away is not kept"


def test_what_it_said_before_serves_for_a_time_while_it_is_away() -> None:
    stage = Tables(keep=60.0, stale=300.0)
    assert stage.log_in_again() == 200
    stage.answer = DOWN
    stage.world.run(120.0)
    assert stage.log_in_again() == 200 and stage.count("auth.stale") == 1
    stage.world.run(300.0)
    assert stage.log_in_again() == 503


def test_a_password_that_does_not_fit_what_is_stale_may_be_a_new_one() -> None:
    """401 would have the phone ask its user."""
    stage = Tables(keep=60.0)
    assert stage.log_in_again() == 200
    stage.answer = DOWN
    stage.world.run(120.0)
    assert stage.log_in_again(password="new") == 503
    assert len(stage.asked) == 3 and stage.logged[1:] == []


def test_one_that_does_not_answer_is_not_waited_for() -> None:
    stage = Tables(World.LATER)
    first = stage.register(stage.alice).final
    ask = stage.register(stage.alice, sign(first, "alice", "wonder"), cseq=2)
    stage.world.run(4.0)
    assert ask.statuses == []
    stage.world.run(1.5)
    assert ask.statuses == [503]
    assert stage.asked[0].given_up
    stage.say(ALICE)
    stage.world.run(64.0)
    assert ask.statuses == [503] and stage.bindings == []
    assert stage.world.leftovers()["runs"] == 0


# --- several who wait -------------------------------------------------------------------------------------------------


def waiting(stage: Tables, count: int) -> list[Ask]:
    """REGISTERs of one phone, each signed anew, none answered yet."""
    stage.answer = World.LATER
    asks = []
    for number in range(count):
        first = stage.register(stage.alice, cseq=100 + 2 * number).final
        asks.append(stage.register(stage.alice, sign(first, "alice", "wonder"), cseq=101 + 2 * number))
    assert [ask.statuses for ask in asks] == [[]] * count
    return asks


def test_requests_for_one_user_share_a_look_up() -> None:
    stage = Tables()
    asks = waiting(stage, 4)
    assert len(stage.asked) == 1
    stage.say(ALICE)
    assert [ask.statuses for ask in asks] == [[200]] * 4


def test_they_share_its_failure_too() -> None:
    stage = Tables()
    asks = waiting(stage, 3)
    stage.say(DOWN)
    assert [ask.statuses for ask in asks] == [[503]] * 3


def test_one_nonce_count_serves_one_of_those_who_wait() -> None:
    stage = Tables(World.LATER)
    line = sign(stage.register(stage.alice).final, "alice", "wonder")
    asks = [stage.register(stage.alice, line, cseq=number) for number in (2, 3)]
    stage.say(ALICE)
    assert [ask.statuses for ask in asks] == [[200], [401]]


def test_a_reload_meanwhile_keeps_the_answer_for_those_who_wait_and_for_nobody_else() -> None:
    stage = Tables()
    (ask,) = waiting(stage, 1)
    other = AskedUsers("local", "another database", 3.0)
    stage.world.reload_site(users={"local": other})
    later = stage.register(stage.alice, cseq=200).final
    second = stage.register(stage.alice, sign(later, "alice", "changed"), cseq=201)
    assert [one.chosen for one in stage.asked] == ["a database", "another database"]
    stage.say(ALICE, 0)
    assert ask.statuses == [200]
    stage.say(Secret("changed"), 1)
    assert second.statuses == [200]
    third = stage.register(stage.alice, cseq=300).final
    again = stage.register(stage.alice, sign(third, "alice", "changed"), cseq=301)
    assert again.statuses == [200] and len(stage.asked) == 2


def test_a_reload_has_everybody_asked_about_anew() -> None:
    stage = Tables(keep=600.0)
    assert stage.log_in_again() == 200
    stage.world.reload_site()
    assert stage.log_in_again() == 200 and len(stage.asked) == 2
    stage.world.reload_site()
    stage.answer = DOWN
    assert stage.log_in_again() == 200 and stage.count("auth.stale") == 1


def test_a_table_that_a_reload_removes_lets_nobody_in() -> None:
    stage = Tables()
    assert stage.log_in_again() == 200
    stage.world.reload_site(users={})
    first = stage.register(stage.alice, cseq=300)
    assert first.statuses == [503]


def test_a_caller_who_hangs_up_is_left_out() -> None:
    stage = Tables(World.LATER)
    callers: list[Peer] = [stage.alice, stage.world.peer("carol", "10.0.0.4")]
    asks = []
    for number, peer in enumerate(callers):
        first = stage.do(peer.ask("INVITE", "sip:bob@example.com", call_id=f"c{number}"))
        first.acknowledge()
        line = sign(first.final, "alice", "wonder", uri="sip:bob@example.com")
        asks.append(stage.do(peer.ask("INVITE", "sip:bob@example.com", line, call_id=f"c{number}", cseq=2)))
    assert len(stage.asked) == 1
    stage.do(asks[0].cancel())
    stage.say(ALICE)
    assert asks[0].statuses == [100, 487]
    assert asks[1].statuses == [100, 480], "nobody is registered, but the caller was let in"


# --- web service ------------------------------------------------------------------------------------------------------


def test_a_web_service_is_asked_once_too() -> None:
    stage = Stage(HttpUsers("https://users.example.com/lookup"))
    stage.world.on_job = lambda job: reply(200, {"ha1": MD5_OF_ALICE}) if isinstance(job.effect, Http) else None
    for cseq in (1, 3, 5):
        first = stage.register(stage.alice, cseq=cseq).final
        line = sign(first, "alice", "wonder", algorithm="MD5")
        assert stage.register(stage.alice, line, cseq=cseq + 1).statuses == [200]
    assert len(stage.world.jobs) == 1


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({"MD5": "a" * 32, "SHA-512-256": "b" * 64}, {"MD5": "a" * 32, "SHA-512-256": "b" * 64}),
        ({"sha256": "B" * 64}, {"SHA-256": "b" * 64}),
        (["c" * 32, "d" * 64], {"MD5": "c" * 32, "SHA-256": "d" * 64}),
        ({"MD5": "b" * 64}, None),
        ({"SHA-1": "b" * 40}, None),
        (["x" * 32], None),
        ([7], None),
    ],
)
def test_hashes_are_told_by_name_or_by_length(written: Any, found: dict[str, str] | None) -> None:
    assert hashes_of(written) == found
