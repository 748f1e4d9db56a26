"""One node: what every part of the core may ask for, and what knows no call.

Time, timers, counters, news for the log, the wires (transaction layer, names and addresses, answered dialogs), events
and work for outside. Parts get a `Node` and the collaborators they name; `core.engine.Engine` is a node, puts the parts
together and takes the inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from orchestrator.core.jobs import Job, JobEffect, Resolve, call_of, error_of, told_of
from orchestrator.core.settings import NO_SITE, CoreSettings, Site
from orchestrator.events.bus import Bus
from orchestrator.events.event import Event
from orchestrator.history import History, JobDone
from orchestrator.measures import Measures
from orchestrator.sip.ack_wait import Handshakes
from orchestrator.sip.client import ClientUser
from orchestrator.sip.dialog import Leg
from orchestrator.sip.in_dialog import send_in_dialog
from orchestrator.sip.intern import Folds
from orchestrator.sip.layer import Outbox, TransactionLayer
from orchestrator.sip.locate import Found, Goal, found_at
from orchestrator.sip.network import SipNetwork
from orchestrator.sip.points import Hop
from orchestrator.sip.tokens import Tokens
from orchestrator.timers import Timers


class Node:
    """Outputs are taken by whoever calls: `datagrams` and `jobs` are emptied after each turn."""

    def __init__(self, settings: CoreSettings, route_key: bytes, now: float) -> None:
        """`route_key` is the key of our Record-Routes; `now` the monotonic clock in seconds."""
        self.settings = settings
        self.site: Site = NO_SITE
        """What the files of the site say now."""
        outbox = Outbox()
        self.datagrams = outbox.messages
        self.send: Callable[[bytes, Hop], None] = outbox.send
        """Put octets on the wire, towards a hop, when the turn is over."""
        self.jobs: list[Job] = []
        self.request_marks: tuple[tuple[str, Callable[[str, int], str]], ...] = ()
        """Headers that web requests of a call get, and what makes their values of the id of the call and the number of
        the job; '' for none."""
        self.counters: Counter[str] = Counter()
        self.measures = Measures()
        self.history = History()
        self.folds = Folds()
        """Of requests that wait."""
        self.on_news: Callable[[str, Mapping[str, Any]], None] | None = None
        """Told what the log shows: the name of an event and its facts."""
        self.draining = False
        """No new calls or registrations are taken any more."""
        self.timers = Timers(now)
        self.layer = TransactionLayer(self.timers, self.send, settings.times)
        self.handshakes = Handshakes(self.timers, settings.times.timeout)
        self.tokens = Tokens(settings.entropy)
        self.network = SipNetwork(settings, self.layer, self.tokens, self._look_up, route_key, self.count)
        self.bus = Bus(self.timers)
        self._last_job = 0
        self._waiting: dict[int, Callable[[Any], None]] = {}

    @property
    def now(self) -> float:
        """The monotonic clock, in seconds."""
        return self.timers.now

    @property
    def wall(self) -> float:
        """Seconds since the epoch, moving with the monotonic clock."""
        return self.timers.now + self.settings.wall_offset

    @property
    def idle(self) -> bool:
        """Nothing is in progress that a stop would break off: no open transaction, no unanswered call of a flow, no
        BYE that waits for an ACK."""
        return not (self.layer.unanswered or self.handshakes.held)

    def count(self, name: str) -> None:
        self.counters[name] += 1

    def tell(self, event: str, **facts: Any) -> None:
        """Something for the log; `source` is the network address that caused it. A fact may be a function without
        arguments that finds it out, should the line be written."""
        if self.on_news is not None:
            self.on_news(event, facts)

    def tell_call(self, event: str, facts: dict[str, Any]) -> None:
        """The same of a call, which is told of each: a dict costs a quarter of what keywords do in the compiled
        build."""
        if self.on_news is not None:
            self.on_news(event, facts)

    def publish(self, name: str, attributes: dict[str, Any], call: str = "") -> int:
        """Raise an event, of the call with this id or of none; returns how many took it."""
        bus = self.bus
        return bus.publish(Event(name, attributes, call, self.timers.now)) if bus.hears(name) else 0

    def job(self, effect: JobEffect, done: Callable[[Any], None], call: str = "") -> int:
        """Hand work out; `done(value or StepError)` runs in a later turn. `call` is the id of the call that it is for,
        where the effect does not name its leg. Returns the id of the job."""
        self._last_job += 1
        if JobDone in self.history.told and (call := call or call_of(effect)):
            done = partial(self._tell_job, self._last_job, effect, call, self.now, done)
        self._waiting[self._last_job] = done
        self.jobs.append(Job(self._last_job, effect))
        return self._last_job

    def _tell_job(
        self, number: int, effect: JobEffect, call: str, started: float, done: Callable[[Any], None], result: Any
    ) -> None:
        what, facts = told_of(effect)
        self.history.tell(JobDone(number, call, what, facts, started, self.now, error_of(result)))
        done(result)

    @property
    def next_job(self) -> int:
        """The id that the next job will have."""
        return self._last_job + 1

    def done_of(self, job: int) -> Callable[[Any], None] | None:
        """Whom the result of a job is for, once; None when nobody waits for it."""
        return self._waiting.pop(job, None)

    def send_in_dialog(
        self,
        leg: Leg,
        method: bytes,
        headers: tuple[bytes, ...] = (),
        user: ClientUser | None = None,
        counted: bool = True,
        body: bytes = b"",
    ) -> None:
        """A request of our own inside a dialog that passes through us; see `sip.in_dialog`."""
        send_in_dialog(self.network, leg, method, self._unreachable, headers, user, counted, body)

    def _unreachable(self) -> None:
        self.count("dialog.unreachable")

    def _look_up(self, goal: Goal, found: Callable[[Found | None], None]) -> None:
        def told(result: Any) -> None:
            if isinstance(result, str):
                result = found_at(goal, result)
            found(result if isinstance(result, Found) else None)

        self.job(Resolve(goal, goal.name in self.network.names.configured), told)
