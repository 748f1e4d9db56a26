"""Whatever comes in, nothing is raised and nothing is left: mutated messages in the middle of real calls (reliability
plan F4, S01-S03).

The parser has its own fuzz; this one is for what stands behind it and believes what it is told: routing, dialogs,
flows.
"""

from __future__ import annotations

import random
from ipaddress import ip_network
from pathlib import Path

import pytest
from reliable import Callee, Caller, Plan

from orchestrator.core.settings import CoreLimits
from orchestrator.flow.language.program import Program
from orchestrator.flow.loader import load_program
from orchestrator.sip.location import Binding
from orchestrator.testing.invariants import without_end
from orchestrator.testing.phone import Address
from orchestrator.testing.world import PROXY, World

FLOW = """flowlang: 1
flows:
  calls:
    on: invite
    do:
      - subscribe: dtmf
        do: [{log: '${event.digit} ${event.ms} ${event.leg}'}]
      - subscribe: branch_failed
        do: [{log: '${event.code} ${event.reason} ${event.contact}'}]
      - subscribe: hangup
        do: [{log: '${event.cause}'}]
      - relay: {to: registered, keep_open: 5s}
        as: result
      - log: '${call.from.display} ${call.target.user}'
  phones:
    on: register
    do:
      - log: '${request.from.aor} ${request.contacts.size()}'
      - register: {}
"""

PIECES = (
    b"", b" ", b"\t", b"\r\n", b"\n", b"\0", b";", b",", b'"', b"<", b">", b"@", b"%", b"%00", b"%41", b":", b"0",
    b"-1", b"99999", b"4294967296", b"9" * 5000, b"\xff\xfe", "ü".encode(), b"sip:", b"tel:+1", b"*", b";tag=x", b";lr",
    b"branch=", b"z9hG4bK", b"[::1]", b"255.255.255.255", b"<sip:10.0.0.1:5060;lr>", b"A" * 3000,
)  # fmt: skip


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to three small changes: something cut out, put in, doubled or swapped."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            data = data[:at] + data[at + chance.choice((1, 1, 4, 20)) :]
        elif kind == 1:
            data = data[:at] + chance.choice(PIECES) + data[at:]
        elif kind == 2:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        else:
            lines = data.split(b"\r\n")
            one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
            if kind == 3:
                lines[one], lines[two] = lines[two], lines[one]
            else:
                lines.insert(one, lines[two])
            data = b"\r\n".join(lines)
    return data


EXTRA = (
    b"INFO sip:bob@10.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.1.1:5060;branch=z9hG4bKi%d\r\nMax-Forwards: 70\r\n"
    b"Route: <sip:10.0.0.1:5060;lr>\r\nFrom: <sip:caller0@example.com>;tag=caller02\r\n"
    b"To: <sip:bob@example.com>;tag=bob01\r\nCall-ID: call-caller01\r\nCSeq: %d INFO\r\n"
    b"Content-Type: application/dtmf-relay\r\nContent-Length: 25\r\n\r\nSignal=5\r\nDuration=160\r\n\r\n",
    b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.2.9:5060;branch=z9hG4bKr%d;rport\r\n"
    b"Max-Forwards: 70\r\nFrom: <sip:carol@example.com>;tag=r\r\nTo: <sip:carol@example.com>\r\nCall-ID: r\r\n"
    b'CSeq: %d REGISTER\r\nContact: <sip:carol@10.0.2.9:5060>;expires=600;+sip.instance="<urn:uuid:1>";reg-id=1,'
    b" <sip:carol@10.0.2.8>;q=0.5\r\nPath: <sip:10.0.0.50;lr>\r\nSupported: path\r\nContent-Length: 0\r\n\r\n",
)


class Mutant:
    """A world whose wires bring a mutated copy beside every datagram to the proxy, and other requests in between."""

    def __init__(self, seed: int, program: Program | None) -> None:
        self.chance = random.Random(seed)
        trust = (ip_network("10.0.0.0/8"),) if seed % 2 else (ip_network("127.0.0.0/8"),)
        limits = CoreLimits(call_duration=200.0)  # nobody hangs up for a mutant that was answered
        self.world = World(program, seed=seed, trust=trust, limits=limits)
        self.world.on_job = lambda job: self.chance.choice((None, "10.0.2.77", "nonsense", "255.255.255.255"))
        self.world.fate = self.fate
        self.world.deliver = self.check  # type: ignore[method-assign]
        chance = self.chance
        plans = [[(0.0, 180), (1.0, 200)], [(0.0, 183), (0.5, chance.choice((200, 302, 401, 486, 603)))]]
        phones = [Callee(self.world, f"bob{n}", f"10.0.2.{n + 1}", Plan(steps)) for n, steps in enumerate(plans)]
        aor = "bob@example.com"
        self.world.location.save(aor, [Binding(aor, p.uri, self.world.engine.wall + 9999) for p in phones], 0)
        self.callers = [Caller(self.world, f"caller{n}", f"10.0.1.{n + 1}") for n in range(2)]

    def fate(self, data: bytes, source: Address, target: Address) -> tuple[float, ...]:
        if target == PROXY:
            if data[:4] in (b"INVI", b"SIP/") and self.chance.random() < 0.5:
                self.world.engine.timers.after(0.01, self.deliver, (mutate(data, self.chance), source))
            if self.chance.random() < 0.2:
                number = self.chance.randrange(1000)
                extra = self.chance.choice(EXTRA) % (number, number)
                self.world.engine.timers.after(0.02, self.deliver, (mutate(extra, self.chance), source))
        return (0.0,)

    def check(self, data: bytes, source: Address, target: Address) -> None:
        """One datagram arrives; behind each that is for the engine nothing may be left that nothing ends."""
        World.deliver(self.world, data, source, target)
        if target == PROXY:
            assert without_end(self.world.engine) == [], data

    def deliver(self, what: tuple[bytes, Address]) -> None:
        """Arrives with the next turn, and is not mutated again."""
        self.world._landed.append((what[0], what[1], PROXY))

    def play(self) -> None:
        for caller in self.callers:
            caller.call(b"bob@example.com")
            self.world.run(3.0)
        for caller in self.callers:
            for call in caller.dialogs.values():
                call.hang_up()
            caller.cancel()
        self.world.run(600.0)


@pytest.mark.parametrize("group", range(10))
@pytest.mark.parametrize("flows", [False, True])
def test_mutants_of_messages_raise_nothing_and_leave_nothing(flows: bool, group: int, tmp_path: Path) -> None:
    program = None
    if flows:
        path = tmp_path / "f.flow.yaml"
        path.write_text(FLOW, encoding="utf-8")
        program = load_program([path])[0]
    for seed in range(group, 200, 10):
        mutant = Mutant(seed, program)
        mutant.play()
        world = mutant.world
        assert not any(world.leftovers().values()), (seed, world.leftovers())
        assert world.engine.layer.unanswered == 0
        stats = world.engine.flows.stats
        assert (stats.faults, stats.failed) == (0, 0), seed
        for caller in mutant.callers:
            assert caller.finals or caller.gave_up
