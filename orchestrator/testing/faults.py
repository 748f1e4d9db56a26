"""A bad Event Socket between a recording and the engine: cut, silent, stuttering, or that of a server that restarts.

What happens on the wires of SIP is not changed by it: callers call, callees answer and hang up as recorded, whether or
not FreeSWITCH gets to say so. That is what a flow has to live with, and what `orchestrator replay --cut 20` shows.

A link that is lost is back after `AWAY` seconds with a snapshot of the channels that are there by then, and answers
what it is asked about them, as a real one does. What was said meanwhile is gone. A silent server is taken for lost
after `UNNOTICED` seconds, the default of the link; until then its commands run into their timeout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.jobs import Job
from orchestrator.errors import StepError
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.run.effects import EslCommand, EslExecute
from orchestrator.testing.recordings import block_of, rewrite
from orchestrator.testing.world import World

AWAY = 0.5
"""Seconds until a lost link is back: the middle of what the first tries take."""

UNNOTICED = 15.0
"""Seconds a server may be silent before the link is given up: 10 s of idleness and 5 s for the reply."""

RESTARTED = "ffffffff-0000-4000-8000-000000000001"
"""Core-UUID after a restart."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong; 0 for never. Numbers count the events that have arrived."""

    cut: int = 0
    """The link is lost after each so many events."""
    silence: int = 0
    """After so many events nothing more is said, nor any command answered."""
    restart: int = 0
    """After so many events FreeSWITCH is restarted; the recording ends there."""
    duplicate: bool = False
    """Every event comes twice."""


class Line:
    """Carries the events of one server into a world, with faults."""

    def __init__(self, world: World, server: str, faults: Faults) -> None:
        self.ended = False
        """FreeSWITCH was restarted: what the recording says from here on did not happen."""
        self.arrived = 0
        self.lost = 0
        self.notes: list[str] = []
        """What went wrong, for people."""
        self._world = world
        self._server = server
        self._faults = faults
        self._up = True
        self._silent = False
        self._core_uuid = ""
        self._channels: dict[str, EslEvent] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []

    def open(self, core_uuid: str) -> None:
        """The link comes up for the first time."""
        self._core_uuid = core_uuid
        self._world.engine.link_changed(self._server, "up", "", self._world.now)
        self._world.run()

    def advance(self, until: float) -> None:
        """Let time pass up to `until`, and the link come back on the way."""
        while self._due and self._due[0][0] <= until:
            at, happen = self._due.pop(0)
            self._world.run(at - self._world.now)
            happen()
            self._world.run()
        self._world.run(until - self._world.now)

    def carry(self, event: EslEvent) -> bool:
        """FreeSWITCH says something; returns whether it arrived."""
        self._remember(event)
        if self._silent or not self._up:
            self.lost += 1
            return False
        for _ in range(1 + self._faults.duplicate):
            self._world.engine.receive_esl(self._server, event, self._world.now)
        self.arrived += 1
        return True

    def strike(self) -> None:
        """What goes wrong after the event that was carried last."""
        faults, count = self._faults, self.arrived
        if not self._up or self._silent:
            return
        if count == faults.restart:
            self.ended = True
            self._core_uuid, self._channels = RESTARTED, {}
            self._lose("FreeSWITCH was restarted")
        elif count == faults.silence:
            self._silent = True
            self.notes.append(f"{self._world.now:.3f}  after {count} events: FreeSWITCH says nothing any more")
            self._due.append((self._world.now + UNNOTICED, self._give_up))
        elif faults.cut and count % faults.cut == 0:
            self._lose("the link was cut")

    def trouble(self, job: Job) -> StepError | None:
        """What a command runs into now; None when FreeSWITCH answers."""
        if not isinstance(job.effect, EslCommand | EslExecute) or (self._up and not self._silent):
            return None
        return StepError("esl.timeout", "no reply") if self._up else StepError("esl.down", "the link is down")

    def dump(self, command: str) -> str:
        """The answer to `uuid_dump <uuid> json`."""
        event = self._channels.get(command.split()[1])
        if event is None:
            return "-ERR No such channel!\n"
        known = EslEvent.plain(rewrite(block_of(event), {"Event-Name": "CHANNEL_DATA", "Core-UUID": self._core_uuid}))
        return json.dumps(dict(known.headers))

    def _remember(self, event: EslEvent) -> None:
        """FreeSWITCH knows its channels, whether or not it could tell us."""
        if event.name == "CHANNEL_DESTROY":
            self._channels.pop(event.uuid, None)
        elif event.name == "CHANNEL_CREATE" or (event.uuid in self._channels and event.name.startswith("CHANNEL_")):
            self._channels[event.uuid] = event

    def _lose(self, why: str) -> None:
        self.notes.append(f"{self._world.now:.3f}  after {self.arrived} events: {why}")
        self._up = False
        self._world.engine.link_changed(self._server, "down", why, self._world.now)
        self._due.append((self._world.now + AWAY, self._return))

    def _give_up(self) -> None:
        self._up = False
        self._world.engine.link_changed(self._server, "down", "no reply within 5 s", self._world.now)

    def _return(self) -> None:
        engine, now = self._world.engine, self._world.now
        self._up = True
        rows = [
            {"uuid": uuid, "direction": event.get("Call-Direction"), "callstate": event.get("Channel-Call-State")}
            for uuid, event in self._channels.items()
        ]
        engine.receive_snapshot(self._server, rows, now, self._core_uuid, now)
        engine.link_changed(self._server, "up", "", now)
        self.notes.append(f"{now:.3f}  back, with {len(rows)} channels; {self.lost} events lost so far")
