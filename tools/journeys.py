"""The ways of an input through the program: how many calls it takes, and how often they cross packages.

    python -m tools.journeys [-v]

Each journey is one turn of the engine, profiled: the calls, the functions and modules among them, and the crossings
from one package to another, *down* to one that the caller's may import and *up* to one that may import the caller's.
What goes up is a call back: the fewer there are, the straighter a reader can follow. `-v` names them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import orchestrator
from orchestrator.core.engine import Engine
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import Source, load_sources
from orchestrator.testing.scenario import Scenario
from tools.layers import LAYERS

ROOT = Path(orchestrator.__file__).parent

RELAY = """flowlang: 1
flows:
  call:
    on: invite
    do:
      - relay: {to: registered, ring: 20s}
        on: {busy: [reply: 486], else: [reply: 480]}
"""
LATE = """flowlang: 1
flows:
  call:
    on: invite
    do:
      - subscribe: registered
        where: {aor: '${call.to.aor}'}
        do: [inject: '${event.uri}']
      - relay: {to: registered, ring: 60s, keep_open: 30s}
        on: {else: [reply: 480]}
"""
KEYS = """flowlang: 1
flows:
  call:
    on: invite
    do:
      - subscribe: dtmf
        do: [hangup: done]
      - relay: {to: registered, via: fs1, ring: 60s}
freeswitch:
  fs1: {host: 10.0.0.9, password: x, sip: 'sip:10.0.0.9:5080'}
"""


@dataclass(slots=True)
class Way:
    """What one journey took."""

    calls: int = 0
    functions: Counter[str] = field(default_factory=Counter)
    """`module.function` → calls of it."""
    modules: set[str] = field(default_factory=set)
    down: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    """Crossings by `caller → callee`."""

    def __str__(self) -> str:
        counts = f"{self.calls:5} {len(self.functions):10} {len(self.modules):8}"
        return f"{counts} {self.down.total():6} {self.up.total():4}"


def below() -> dict[str, set[str]]:
    """Package → the packages it may import, directly or through others."""
    found: dict[str, set[str]] = {}
    for room, others in LAYERS.items():
        package = room.partition(".")[0]
        found.setdefault(package, set()).update({other.partition(".")[0] for other in others} - {package})
    for _ in found:
        for others in found.values():
            others |= {deeper for other in others for deeper in found[other]}
    return found


@cache
def _module(file: str) -> str:
    """The module of a file of the program below its root; '' for what is not part of it, or of the test kit."""
    path = Path(file)
    if not path.is_relative_to(ROOT):
        return ""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return "" if name.startswith("testing.") else name


class Profile:
    """Counts the calls of one turn into a `Way`."""

    def __init__(self) -> None:
        self.way = Way()
        self._below = below()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        module = _module(frame.f_code.co_filename)
        if event != "call" or not module:
            return
        way = self.way
        way.calls += 1
        way.functions[f"{module}.{frame.f_code.co_qualname}"] += 1
        way.modules.add(module)
        caller, origin = frame.f_back, ""
        while caller is not None and not (origin := _module(caller.f_code.co_filename)):
            if Path(caller.f_code.co_filename).is_relative_to(ROOT / "testing"):
                return  # the test kit listens, and calls what it likes
            caller = caller.f_back
        if caller is None or not origin:
            return
        one, other = origin.partition(".")[0], module.partition(".")[0]
        crossing = f"{origin}.{caller.f_code.co_qualname} → {module}.{frame.f_code.co_qualname}"
        if other in self._below.get(one, ()):
            way.down[crossing] += 1
        elif one in self._below.get(other, ()):
            way.up[crossing] += 1


def profiled(engine: Engine, entry: str, act: Callable[[], object]) -> Way:
    """The first turn that `act` brings about at one input of the engine (`receive`, `receive_esl`)."""
    profile, take = Profile(), getattr(engine, entry)

    def taken(*arguments: Any) -> None:
        setattr(engine, entry, take)
        sys.setprofile(profile)
        try:
            take(*arguments)
        finally:
            sys.setprofile(None)

    setattr(engine, entry, taken)
    act()
    return profile.way


def story(flows: str) -> Scenario:
    """A story in which `bob` is registered."""
    program = load_sources([Source("journeys.flow.yaml", flows)])[0] if flows else Program()
    return Scenario(program, registered={"bob@example.com": ["bob@10.0.0.5"]})


def call(flows: str) -> Way:
    """The turn that an INVITE is, up to the branch that leaves."""
    told = story(flows)

    def act() -> None:
        told.invite("alice@example.com", "bob@example.com")
        told.run_until(0.0)

    return profiled(told.world.engine, "receive", act)


def key() -> Way:
    """A key that ends an answered call behind FreeSWITCH."""
    told = story(KEYS)
    told.at(0, lambda: told.invite("alice@example.com", "bob@example.com"))
    told.at(1, lambda: told.respond("bob*", 200))
    told.at(3, lambda: profile())
    way = Way()

    def profile() -> None:
        nonlocal way
        way = profiled(told.world.engine, "receive_esl", lambda: told.press("caller", "1"))

    told.run_until(4.0)
    return way


def registration(flows: str = LATE) -> Way:
    """A REGISTER that is stored; with `LATE` it wakes a call up, which sends a late branch to it."""
    told = story(flows)
    told.invite("alice@example.com", "carol@example.com")
    told.run_until(1.0)

    def act() -> None:
        told.register("carol@example.com", "carol@10.0.0.6")
        told.run_until(1.0)

    return profiled(told.world.engine, "receive", act)


JOURNEYS: Mapping[str, Callable[[], Way]] = {
    "INVITE without a flow": lambda: call(""),
    "INVITE through relay: registered": lambda: call(RELAY),
    "DTMF, hangup, two BYEs": key,
    "REGISTER, stored, late branch": registration,
}


def main(*arguments: str) -> int:
    """Print the table; returns the exit status."""
    print(f"{'journey':34} calls  functions  modules   down   up")
    for name, journey in JOURNEYS.items():
        way = journey()
        print(f"{name:34} {way}")
        if "-v" in arguments:
            for crossing, times in way.up.most_common():
                print(f"      up {times:3}  {crossing}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
