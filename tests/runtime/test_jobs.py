"""Jobs find their pools, and what FreeSWITCH or the network says becomes a result or an error of the language."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent.event
import pytest
from echo_core import wait_until

from orchestrator.core.jobs import Job, Resolve
from orchestrator.errors import EslDown, EslError, EslInjection, EslTimeout, StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.run.effects import EslCommand, EslExecute, Http
from orchestrator.runtime.http import HttpClient
from orchestrator.runtime.jobs import ESL_WORKERS, EXECUTE_LIMIT, HTTP_WORKERS, JOB_LIMIT, LONG_WORKERS, Jobs
from orchestrator.sip.locate import Goal, found_at


class Link:
    """A link whose answers are given by the test."""

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say = say
        self.asked: list[tuple[Any, ...]] = []

    def api(self, command: str, timeout: float | None = None) -> str:
        self.asked.append(("api", command, timeout))
        return self.say(command)

    def bgapi(self, command: str, timeout: float | None = None) -> str:
        self.asked.append(("bgapi", command, timeout))
        return self.say(command)

    def execute(self, uuid: str, app: str, args: str = "") -> None:
        self.asked.append(("execute", uuid, app, args))
        self.say(app)

    def run(self, uuid: str, app: str, args: str = "", timeout: float | None = None) -> EslEvent:
        self.asked.append(("run", uuid, app, args, timeout))
        return EslEvent.plain(f"Application-Response: {self.say(app)}\nvariable_record_ms: 1500\n\n".encode())


class Desk:
    """Jobs with one link, and the answers that came."""

    def __init__(self, say: Callable[[str], str] = lambda command: "+OK") -> None:
        self.answers: dict[int, Any] = {}
        self.link = Link(say)
        links: Any = {"fs1": self.link, "fs2": Link(say)}
        self.jobs = Jobs(self.answers.__setitem__, HttpClient(), links)
        self.number = 0

    def start(self, effect: Any) -> int:
        self.number += 1
        self.jobs.start(Job(self.number, effect))
        return self.number

    def do(self, effect: Any) -> Any:
        number = self.start(effect)
        return wait_until(lambda: self.answers.get(number, ""))


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.jobs.close()


# --- Event Socket -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["api", "bgapi"])
def test_commands_go_to_their_server_with_their_timeout(desk: Desk, kind: str) -> None:
    assert desk.do(EslCommand(kind, "status", "fs1", timeout=2.5)) == {"ok": True, "text": "+OK"}
    assert desk.link.asked == [(kind, "status", 2.5)]


def test_a_job_may_take_its_time_and_a_command_what_is_configured(desk: Desk) -> None:
    desk.do(EslCommand("api", "status", "fs1"))
    desk.do(EslCommand("bgapi", "originate user/1000 &park()", "fs1"))
    assert [timeout for _, _, timeout in desk.link.asked] == [None, JOB_LIMIT]


@pytest.mark.parametrize(
    ("text", "ok"),
    [("+OK", True), ("UP 0 years", True), ("-ERR no such channel\n", False), ("-USAGE: x", False), ("", True)],
)
def test_what_freeswitch_says_is_the_result(text: str, ok: bool) -> None:
    assert Desk(lambda command: text).do(EslCommand("api", "x", "fs1")) == {"ok": ok, "text": text}


@pytest.mark.parametrize(
    ("error", "type"),
    [
        (EslTimeout("no reply within 5 s", "api x"), "esl.timeout"),
        (EslDown("fs1 is down", "api x"), "esl.down"),
        (EslInjection("a line break", "api x"), "esl.command"),
        (EslError("-ERR invalid session id", "sendmsg"), "esl.command"),
    ],
)
def test_what_goes_wrong_is_an_error_of_the_language(error: EslError, type: str) -> None:
    def refuse(command: str) -> str:
        raise error

    desk = Desk(refuse)
    for effect in (EslCommand("api", "x", "fs1"), EslExecute("set", "a=b", server="fs1", uuid="u")):
        answer = desk.do(effect)
        assert isinstance(answer, StepError)
        assert (answer.type, answer.message) == (type, str(error))


def test_unknown_server_is_answered_at_once(desk: Desk) -> None:
    number = desk.start(EslCommand("api", "status", "fs9"))
    assert desk.answers[number].type == "esl.down"
    assert "'fs9'" in desk.answers[number].message


def test_applications(desk: Desk) -> None:
    done = {"response": "+OK", "variables": {}}
    assert desk.do(EslExecute("set", "a=b", server="fs1", uuid="u1")) == {"response": "", "variables": {}}
    assert desk.do(EslExecute("rxfax", "/f.tif", wait=True, server="fs1", uuid="u1")) == done
    assert desk.link.asked == [("execute", "u1", "set", "a=b"), ("run", "u1", "rxfax", "/f.tif", EXECUTE_LIMIT)]


def test_an_application_hands_back_the_variables_asked_for_within_its_time(desk: Desk) -> None:
    record = EslExecute("record", "/f.wav", "", True, "fs1", "u1", ("record_ms", "never_set"), 2.5)
    assert desk.do(record)["variables"] == {"record_ms": "1500", "never_set": ""}
    assert desk.link.asked[-1][-1] == 2.5


def test_what_hangs_holds_up_only_its_like() -> None:
    """Applications that run for minutes and a server that hangs: commands to another server go through."""
    gate = gevent.event.Event()

    def hang(command: str) -> str:
        if command != "quick":
            gate.wait()
        return "+OK"

    desk = Desk(hang)
    for _ in range(LONG_WORKERS // 2):
        desk.start(EslExecute("rxfax", wait=True, server="fs1", uuid="u"))
        desk.start(EslCommand("bgapi", "originate", "fs1"))
    application = EslExecute("record", wait=True, server="fs2", uuid="u")
    desk.jobs._links["fs2"].say = lambda command: "+OK"  # type: ignore[attr-defined]
    assert desk.do(application)["response"] == "+OK"
    assert desk.do(EslCommand("api", "quick", "fs1")) == {"ok": True, "text": "+OK"}
    for _ in range(ESL_WORKERS + 5):
        desk.start(EslCommand("api", "slow", "fs1"))
    assert desk.do(EslCommand("api", "quick", "fs2")) == {"ok": True, "text": "+OK"}
    busy = {pool.name: (pool.running, pool.waiting) for pool in desk.jobs.pools if not pool.idle}
    assert busy == {"esl fs1 long": (LONG_WORKERS, 0), "esl fs1": (ESL_WORKERS, 5)}
    assert not desk.jobs.idle
    gate.set()
    wait_until(lambda: desk.jobs.idle)
    desk.jobs.close()


# --- the others -------------------------------------------------------------------------------------------------------


def test_names_are_looked_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    goal = Goal("phone.example.com")
    monkeypatch.setattr(desk.jobs.resolver, "find", lambda asked: found_at(asked, "192.0.2.1"))
    assert desk.do(Resolve(goal)) == found_at(goal, "192.0.2.1")


def test_http_has_a_pool_of_its_own(desk: Desk) -> None:
    answer = desk.do(Http("GET", "ftp://nowhere"))
    assert answer.type == "http.connect"
    assert desk.jobs.pools[0].name == "http" and desk.jobs.pools[0].done == 1


def test_queues_are_as_long_as_configured_and_what_is_refused_is_counted() -> None:
    answers: dict[int, Any] = {}
    hold = gevent.event.Event()
    client: Any = type("Client", (), {"perform": lambda self, effect: hold.wait(5), "close": lambda self: None})()
    links: Any = {"fs1": Link(lambda command: str(hold.wait(5)))}
    jobs = Jobs(answers.__setitem__, client, links, http_queue=3, esl_queue=2)
    try:
        for number in range(HTTP_WORKERS + 5):
            jobs.start(Job(number, Http("GET", "http://a.example/")))
            gevent.sleep(0)
        for number in range(1_000, 1_000 + ESL_WORKERS + 4):
            jobs.start(Job(number, EslCommand("api", "status", "fs1")))
            gevent.sleep(0)
        refused = [number for number, answer in answers.items() if isinstance(answer, StepError)]
        assert len(refused) == 4 and {answers[number].type for number in refused} == {"flow.limit"}
        assert {pool.name: pool.refused for pool in jobs.pools if pool.refused} == {"http": 2, "esl fs1": 2}
    finally:
        hold.set()
        jobs.close()
