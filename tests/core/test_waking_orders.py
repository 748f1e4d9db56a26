"""All orders of push answers, REGISTERs, CANCEL, the end of the wait and what phones say: 1,000 random ones with a
manual clock, half of them without a flow and half with `relay: wake:`.

Whatever comes first: the caller gets one final answer, a phone rings once at most whatever its contact is, it rings if
it has registered while the call waited for it, an app is told of the end of a call only if it was woken and has not
registered, and nothing stays behind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from wakekit import Night, program

from orchestrator.sip.push import Pushed
from orchestrator.sip.transaction import TimerValues
from orchestrator.testing.peer import Ask, Peer

WAKE = 20.0
AT = (0.0, 0.0, 1.0, 5.0, 5.0, 12.0, 19.99, 20.0, 20.01, 23.0)
"""When things happen; many at the same moment, in an order of their own."""
SEEDS, PART = 1_000, 100
SLOW = TimerValues(t1=4.0, t2=16.0)
"""So that little is repeated."""


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    folder: Path = tmp_path_factory.mktemp("flows")

    @cache
    def made(mode: str) -> Any:
        keys = f"to: registered, wake: {WAKE:g}s{mode}"
        return program(folder, f"      - relay: {{{keys}}}\n        on:\n          else: [{{reply: 480}}]\n")

    return made


class Story:
    """alice calls bob, who has phones that sleep and a desk phone, maybe; then things happen."""

    def __init__(self, seed: int, flows: Callable[[str], Any]) -> None:
        self.random = random.Random(seed)  # repeatable on purpose
        chance = self.random
        mode = chance.choice((None, None, None, "", "", ", mode: serial", ", mode: by_q", ", keep_open: 5s"))
        self.serial = mode is not None and "mode" in mode
        self.night = night = Night(None if mode is None else flows(mode), wake=WAKE, seed=seed, times=SLOW)
        night.answer = None
        self.tokens = [f"T{number}" for number in range(chance.randint(1, 3))]
        self.places: dict[str, list[Peer]] = {}
        for number, token in enumerate(self.tokens):
            self.places[token] = [night.stored(f"mobile{number}", f"10.1.{number}.1", token)]
        night.world.run(31)
        self.desk = [night.stored("desk", "10.2.0.1")] if chance.random() < 0.5 else []
        self.registered: dict[str, float] = {}
        """Token → when its phone first registered since the call."""
        self.silent: set[tuple[Peer, bytes | None]] = set()
        """Who has said his last word about which INVITE."""
        self.outcomes: dict[str, tuple[float, str]] = {}
        self.call: Ask = night.call()
        self.begin = night.world.now
        self.over_at: float | None = None

    @property
    def passed(self) -> float:
        return self.night.world.now - self.begin

    @property
    def over(self) -> bool:
        return any(status >= 200 for status in self.call.statuses)

    def run(self) -> None:
        acts = list(self.acts())
        self.random.shuffle(acts)
        plan = sorted(((self.random.choice(AT), number) for number in range(len(acts))), key=lambda entry: entry[0])
        for at, number in plan:
            if at > self.passed:
                self.night.world.run(at - self.passed)
            acts[number]()
            self.night.world.run()
            if self.over and self.over_at is None:
                self.over_at = self.passed
        self.night.world.run(max(0.0, 25.0 - self.passed))
        for peer in self.everybody() * len(self.tokens + self.desk):  # one after the other, if serial
            self.say(peer, 486)

    def acts(self) -> Iterator[Callable[[], object]]:
        chance = self.random
        for token in self.tokens:
            if chance.random() < 0.8:
                yield lambda token=token: self.push_answered(token, chance.choice(("sent", "sent", "failed", "dead")))
            for _ in range(chance.choice((0, 1, 1, 2, 3))):
                yield lambda token=token: self.register(token)
        for peer in self.everybody():
            if chance.random() < 0.6:
                yield lambda peer=peer: self.say(peer, chance.choice((180, 200, 486, 480, 603)))
        if chance.random() < 0.3:
            yield self.cancel
        for token in self.tokens:
            if chance.random() < 0.3:
                yield lambda token=token: self.say(self.places[token][-1], chance.choice((180, 200, 486)))

    def everybody(self) -> list[Peer]:
        return [*(peer for peers in self.places.values() for peer in peers), *self.desk]

    def push_answered(self, token: str, outcome: Any) -> None:
        number = next((n for n, pushed in enumerate(self.night.pushes) if pushed == ("call", token)), None)
        if number is not None and token not in self.outcomes:
            self.outcomes[token] = (self.passed, outcome)
            job = self.night.jobs[number]
            self.night.engine.complete(job.id, Pushed(outcome), self.night.world.now)

    def register(self, token: str) -> None:
        """From another place, every other time."""
        night, places = self.night, self.places[token]
        if self.random.random() < 0.5:
            number = len(places) + 1
            places.append(night.world.peer(f"{places[0].name}-{number}", f"10.1.{self.tokens.index(token)}.{number}"))
        night.register(places[-1], token)
        self.registered.setdefault(token, self.passed)

    def say(self, peer: Peer, status: int) -> None:
        asked = {request.via.branch: request for request in peer.requests("INVITE")}
        for request in [request for branch, request in asked.items() if (peer, branch) not in self.silent]:
            peer.answer(request, status)
            if status >= 200:
                self.silent.add((peer, request.via.branch))
            if status >= 600 and self.over_at is None:
                self.over_at = self.passed  # nobody else is to ring (RFC 3261 §16.7)
        self.night.world.run()

    def cancel(self) -> None:
        if not self.over:
            self.call.cancel()
            self.night.world.run()

    # --- what has to hold -------------------------------------------------------------------------------------------

    def check(self) -> None:
        night = self.night
        finals = [status for status in self.call.statuses if status >= 200]
        assert len(set(finals)) == 1, "one final answer"
        for token, places in self.places.items():
            rung = sum(night.rung(*places))
            assert rung <= 1, f"{token} has rung {rung} times"
            if self.should_ring(token):
                assert rung == 1, f"{token} has not rung"
            pushes = [kind for kind, pushed in night.pushes if pushed == token]
            assert pushes in (["call"], ["call", "cancel"])
            if pushes == ["call", "cancel"]:
                assert self.outcomes[token][1] == "sent"
                assert not rung
        for peer in self.desk:
            assert night.rung(peer) == [1]

    def should_ring(self, token: str) -> bool:
        """Whether its phone has registered while it was waited for, the call was open and its turn came."""
        at = self.registered.get(token)
        if at is None or self.serial or at >= WAKE - 0.1 or (self.over_at is not None and at >= self.over_at):
            return False
        answered = self.outcomes.get(token)
        return answered is None or answered[1] == "sent" or at < answered[0]

    def end(self) -> None:
        world = self.night.world
        for status in self.call.statuses:
            if status >= 300:
                self.call.acknowledge()
                break
        for call in list(self.night.engine.calls):
            call.hangup("enough", None)
        world.run(0.01)
        for peer in self.everybody():
            for method in ("BYE", "CANCEL"):
                for request in peer.requests(method):
                    peer.answer(request, 200)
        world.run(600)
        left = world.leftovers()
        assert not any(left.values()), left
        assert len(self.night.engine.wakers) == 0
        assert self.night.engine.faults.count == 0


@pytest.mark.parametrize("part", range(0, SEEDS, PART))
def test_every_order(part: int, flows: Callable[[str], Any]) -> None:
    for seed in range(part, part + PART):
        story = Story(seed, flows)
        try:
            story.run()
            story.check()
            story.end()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
