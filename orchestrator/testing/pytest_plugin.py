"""The pytest plugin, installed with the package: `*.test.yaml` are collected, and the fixture `flow` tests in Python.

    def test_late_mobile(flow):
        mobile = "bob@10.0.0.7;pn-provider=fcm;pn-prid=token1"
        run = flow("flows/push_wakeup.flow.yaml", registered={"bob@example.com": ["bob@10.0.0.5", mobile]})
        run.push.on("bob@example.com").wakes("4s", contact="bob@10.0.0.9")
        call = run.invite("alice@example.com", "bob@example.com")
        call.branch("bob@10.0.0.9").answers(at="6s")
        assert call.replies == [200] and call.branch("bob@10.0.0.5").cancelled

What is written down happens when the first result is asked for; from then on nothing can be added. At the end of the
test every story is held against what must never be: an error nobody caught, or anything left after the last call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InputError
from orchestrator.flow.expr import seconds
from orchestrator.flow.language.diagnostics import render_text
from orchestrator.flow.loader import load_program
from orchestrator.flow.run.run import Run
from orchestrator.flow.run.trace import render
from orchestrator.testing.case_files import SUFFIX, Case, Outcome, load_cases
from orchestrator.testing.expectations import judge
from orchestrator.testing.facts import EffectRule, HttpRule, PushOutcome, PushRule
from orchestrator.testing.parties import StoryCall
from orchestrator.testing.recordings import Recording
from orchestrator.testing.scenario import Scenario
from orchestrator.testing.switch.channel import LOUD, TONES


def _time(at: str | float) -> float:
    """`6s`, `500ms` or seconds. Raises ValueError."""
    if not isinstance(at, str):
        return float(at)
    length = seconds(at)
    if length is None:
        raise ValueError(f"{at!r} is not a duration: write 6s or 500ms")
    return length


# --- the fixture ------------------------------------------------------------------------------------------------------


class Http:
    """The web services of a story."""

    def __init__(self, story: Scenario) -> None:
        self._story = story

    def on(self, method: str, url: str) -> HttpAnswer:
        """What a request that fits (globs) is answered; the first rule that fits counts."""
        return HttpAnswer(self._story, method, url)

    @property
    def requests(self) -> list[Any]:
        """The `effects.Http` that were asked for, in order."""
        return [fact.data for fact in self._story.facts if fact.kind == "http"]


class HttpAnswer:
    def __init__(self, story: Scenario, method: str, url: str) -> None:
        self._story, self._method, self._url = story, method, url

    def reply(self, status: int, json: Any = None, text: str = "", delay: str | float = 0) -> None:
        self._story.outside.http.append(HttpRule(self._url, self._method, status, json, text, delay=_time(delay)))

    def fail(self, error: str = "connect") -> None:
        """No answer at all: `connect` or `timeout`."""
        self._story.outside.http.append(HttpRule(self._url, self._method, error=error))


class Push:
    """The push services of a story: apns, fcm and webpush."""

    def __init__(self, story: Scenario) -> None:
        self._story = story

    def on(self, to: str = "*", *, service: str = "*", kind: str = "*", token: str = "*") -> PushAnswer:  # noqa: S107
        """What becomes of a push that fits (globs); the first rule that fits counts, without one it is sent."""
        return PushAnswer(self._story, to, service, kind, token)

    @property
    def asked(self) -> list[Any]:
        """The pushes (`sip.push.Push`) that were asked for, in order."""
        return [fact.data for fact in self._story.facts if fact.kind == "push"]


class PushAnswer:
    def __init__(self, story: Scenario, to: str, service: str, kind: str, token: str) -> None:
        self._story, self._fits = story, (to, service, kind, token)

    def wakes(self, after: str | float = 0, contact: str = "", delay: str | float = 0) -> None:
        """The service takes it after `delay`; `after` that the phone registers, from another contact if one is
        given."""
        self._add(PushRule(*self._fits, delay=_time(delay), wakes=_time(after), contact=contact))

    def says(self, outcome: PushOutcome, reason: str = "", delay: str | float = 0) -> None:
        """The service takes it (`sent`) and the phone sleeps on, refuses it (`failed`), or says that nobody has the
        token any more (`dead`)."""
        self._add(PushRule(*self._fits, outcome=outcome, reason=reason, delay=_time(delay)))

    def _add(self, rule: PushRule) -> None:
        self._story.outside.push.append(rule)


class Effects:
    """Effects of packages that are done in pools, in a story."""

    def __init__(self, story: Scenario) -> None:
        self._story = story

    def on(self, name: str, result: Any = None, *, error: str = "", delay: str | float = 0, **wanted: Any) -> None:
        """What becomes of an effect of that name (a glob) whose fields hold at least what is `wanted`: its result, or
        the type of the error it fails with."""
        self._story.outside.effects.append(EffectRule(name, wanted, result, error, _time(delay)))

    @property
    def asked(self) -> list[Any]:
        """The effects that were asked for, in order."""
        return [fact.data for fact in self._story.facts if fact.kind == "effect"]


class At:
    """Acts at one moment of the story."""

    def __init__(self, run: FlowRun, time: float) -> None:
        self._run, self._time = run, time

    def register(self, aor: str, contact: str, expires: int = 3600) -> None:
        self._run.schedule(self._time, lambda story: story.register(aor, contact, expires))

    def raise_event(self, name: str, **attributes: Any) -> None:
        self._run.schedule(self._time, lambda story: story.raise_event(name, attributes))

    def hangup(self, call: CallHandle, side: str = "caller") -> None:
        self._run.schedule(self._time, lambda story: story.hangup(side, call.story_call))

    def press(self, call: CallHandle, side: str, digit: str) -> None:
        """A key: FreeSWITCH hears it where the media go through one, else it is a SIP INFO."""
        self._run.schedule(self._time, lambda story: story.press(side, digit, call.story_call))

    def speaks(self, call: CallHandle, side: str, length: str | float = 1.0, level: int = LOUD) -> None:
        """A side talks for so long, as loud as `level` (mean sample); FreeSWITCH hears it."""
        seconds = _time(length)
        self._run.schedule(self._time, lambda story: story.speak(side, seconds, call.story_call, level))

    def tone(self, call: CallHandle, side: str, tone: str) -> None:
        """`beep`, `cng` or `ced`, heard by a detector that listens for it."""
        if tone not in TONES:
            raise ValueError(f"{tone!r} is not a tone: {', '.join(TONES)}")
        self._run.schedule(self._time, lambda story: story.sound(side, tone, call.story_call))


class Esl:
    """FreeSWITCH's side, as recorded."""

    def __init__(self, run: FlowRun) -> None:
        self._run = run

    def replay(self, path: str | Path, legs: Mapping[str, str], at: str | float = 0) -> None:
        """Play a recording from that moment on; `legs` (caller, callee → uuid) ties its channels to the last call."""
        recording = Recording.load(path)
        self._run.schedule(_time(at), lambda story: story.replay(recording, legs))


class Branch:
    """The phone with a contact (a glob), as one destination of the call."""

    def __init__(self, call: CallHandle, contact: str) -> None:
        self.call = call
        self._contact = contact

    def answers(self, at: str | float) -> Branch:
        return self.replies(200, at)

    def replies(self, code: int, at: str | float) -> Branch:
        self.call.run.schedule(_time(at), lambda story: story.respond(self._contact, code))
        return self

    @property
    def rang(self) -> bool:
        return bool(self.call.run.story.incoming(self._contact))

    @property
    def cancelled(self) -> bool:
        return any(call.cancelled for call in self.call.run.story.incoming(self._contact))


class CallHandle:
    """One call of the story; asking for a result tells the story. Without a call of its own it is the last one: that is
    how a call is named which a flow has FreeSWITCH place."""

    def __init__(self, run: FlowRun) -> None:
        self.run = run
        self.story_call: StoryCall | None = None

    def branch(self, contact: str) -> Branch:
        return Branch(self, contact)

    @property
    def _told(self) -> StoryCall:
        story = self.run.story  # tells it
        found = self.story_call or (story.calls[-1] if story.calls else None)
        assert found is not None, "nobody has called"
        return found

    @property
    def replies(self) -> list[int]:
        """Final replies the caller got."""
        return self._told.replies

    @property
    def ended_by(self) -> str:
        return self._told.ended_by

    @property
    def end_reason(self) -> str:
        return self._told.end_reason


class Handler:
    def __init__(self, counts: tuple[int, int]) -> None:
        self.runs, self.skipped = counts


class FlowRun:
    """A story in Python: write down what happens, then ask what came of it."""

    def __init__(self, story: Scenario) -> None:
        self._story = story
        self.http = Http(story)
        self.effects = Effects(story)
        self.push = Push(story)
        self.esl = Esl(self)
        self.allow: list[str] = []
        """Error types (globs) that may end a flow; `leak` for what may be left."""

    def schedule(self, time: float, act: Callable[[Scenario], object]) -> None:
        if self._story.finished:
            raise RuntimeError("the story has been told: write down all that happens before asking for results")
        self._story.at(time, lambda: act(self._story))

    def at(self, time: str | float) -> At:
        return At(self, _time(time))

    def invite(self, caller: str, to: str, at: str | float = 0, headers: Mapping[str, str] | None = None) -> CallHandle:
        handle = CallHandle(self)

        def act(story: Scenario) -> None:
            handle.story_call = story.invite(caller, to, headers)

        self.schedule(_time(at), act)
        return handle

    def send(
        self,
        method: str,
        sender: str,
        to: str,
        at: str | float = 0,
        headers: Mapping[str, str] | None = None,
        body: str = "",
    ) -> None:
        """A request that begins no call: message, options and so on."""
        self.schedule(_time(at), lambda story: story.send(method, sender, to, headers, body))

    @property
    def placed(self) -> CallHandle:
        """The call a flow has FreeSWITCH place (`originate`): the last one of the story."""
        return CallHandle(self)

    @property
    def story(self) -> Scenario:
        """The story, told."""
        self._story.finish()
        return self._story

    def handler(self, id: str) -> Handler:
        """How often the subscription with this id handled and skipped an event."""
        return Handler(self.story.handled(id))

    @property
    def vars(self) -> Mapping[str, Any]:
        """Variables of the last run, at its end."""
        run: Run | None = self.story.run_of()
        return run.vars if run is not None else {}

    @property
    def logs(self) -> list[str]:
        return [text for _, _, text in self.story.logs]


@pytest.fixture
def flow(request: pytest.FixtureRequest) -> Iterator[Callable[..., FlowRun]]:
    """`flow(path, …, registered={aor: [contacts]}, secrets={})`: the real engine on virtual wires. See the module.

    `sounds`: seconds that sounds of FreeSWITCH play, by globs over their names; the others take no time.
    """
    runs: list[FlowRun] = []

    def make(
        *paths: str | Path,
        registered: Mapping[str, Sequence[str]] | None = None,
        secrets: Mapping[str, str] | None = None,
        sounds: Mapping[str, float] | None = None,
    ) -> FlowRun:
        files = [path if Path(path).exists() else request.config.rootpath / path for path in paths]
        program, _ = load_program([Path(file) for file in files])
        runs.append(FlowRun(Scenario(program, registered=registered, secrets=secrets, sounds=sounds)))
        return runs[-1]

    yield make
    for run in runs:
        failures = judge(run.story, (), run.allow)
        if failures:
            traces = "\n".join(line for trace in run.story.traces() for line in render(trace))
            pytest.fail("\n".join(failure.message for failure in failures) + "\n" + traces, pytrace=False)


# --- *.test.yaml ------------------------------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return CaseFile.from_parent(parent, path=file_path) if file_path.name.endswith(SUFFIX) else None


class CaseFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        try:
            cases = load_cases(self.path)
        except InputError as error:
            raise pytest.Collector.CollectError(_rendered(error)) from None
        for case in cases:
            yield CaseItem.from_parent(self, name=case.name, case=case)


class CaseItem(pytest.Item):
    def __init__(self, *, case: Case, **other: Any) -> None:
        super().__init__(**other)
        self.case = case

    def runtest(self) -> None:
        outcome = self.case.run()
        if not outcome.passed:
            raise CaseFailed(outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, CaseFailed):
            return str(excinfo.value)
        if isinstance(excinfo.value, InputError):
            return _rendered(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.case.place.line - 1, self.name


class CaseFailed(Exception):
    """A case of a test file that did not come true."""

    def __init__(self, outcome: Outcome) -> None:
        traces = [line for trace in outcome.story.traces() for line in render(trace)]
        super().__init__("\n".join([*map(str, outcome.failures), *traces]))


def _rendered(error: InputError) -> str:
    files = {diagnostic.file for diagnostic in error.diagnostics}
    sources = {file: Path(file).read_text(encoding="utf-8") for file in files if Path(file).exists()}
    return render_text(list(error.diagnostics), sources)
