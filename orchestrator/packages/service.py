"""Services: code of other packages that starts and stops with the server.

    SERVICE = Service("doorbell", "Rings when somebody is at the door.", Doorbell, DoorbellSettings)

    [project.entry-points."orchestrator.services"]
    doorbell = "orchestrator_doorbell:SERVICE"

An event source is a service that publishes events, an event sink one that listens to them. A service runs when
`services:` of the configuration names it; what stands under its name is held against its settings model. Its code runs
in greenlets, never inside a turn: what it raises is logged and counted, and costs neither a call nor the server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from orchestrator.events.event import EventSpec
from orchestrator.events.received import Received
from orchestrator.packages.groups import SERVICE_GROUP, Find, check_name, installed, load_named, names_of

F = TypeVar("F")
QUEUE = 1000
"""Events that may wait for a listener."""


class NoSettings(BaseModel):
    """Of a service that has nothing to configure."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Raised:
    """An event, as a listener gets it."""

    name: str
    attributes: Mapping[str, Any]
    call: str
    """The id of the call it belongs to, '' for none."""
    time: float
    """Seconds since the epoch."""


class ServerContext(Protocol):
    """What a service may use of the server. All of it may be called from greenlets of the server, none of it waits."""

    @property
    def name(self) -> str:
        """The name of the service."""

    @property
    def node(self) -> str:
        """The name of this server: `node:` of the configuration, else that of the host."""

    def publish(self, event: str, attributes: Mapping[str, Any], call: str = "") -> bool:
        """Raise an event, in a turn of its own; one of a call needs the id of that call (`call.id` in flows). What is
        published before the server is ready is kept until then.

        Returns False, and counts it, when the server has no room for more inputs.

        Raises:
            ValueError: there is no such event, or an attribute is missing, unknown or not of its type.
        """

    def take(self, received: Received) -> int:
        """Raise an event that another program or a person asks for, if others may raise it (those of `events:` and of
        packages may), and wait until its turn is over: the only method that waits. Returns how many subscriptions of
        flows took it.

        Raises:
            ValueError: what is wrong with it.
            NoSuchCall, NoRoom (events.received): it is right and was not raised.
        """

    def listen(self, events: Collection[str], handle: Callable[[Raised], object], queue: int = QUEUE) -> None:
        """Call `handle(event)` for each event of these names, one after the other, in a greenlet of its own. `*` and
        `?` in a name stand for any text and any character (never for `fs`); a reload may bring events that fit.

        When `queue` events wait already, one more is dropped and counted: a listener that hangs holds up nobody.

        Raises:
            ValueError: there is no such event.
        """

    def listen_facts(self, kind: type[F], handle: Callable[[F], object], queue: int = QUEUE) -> None:
        """The same for facts of one kind (`fact_kinds`)."""

    def listen_together(
        self, events: Collection[str], handle: Callable[[list[Raised]], object], queue: int = QUEUE, gather: float = 0.0
    ) -> None:
        """`listen`, but `handle(events)` is given all that wait, in order; `gather` as in `follow`."""

    def follow(
        self,
        kinds: Collection[type[Any]],
        handle: Callable[[list[Any]], object],
        queue: int = QUEUE,
        gather: float = 0.0,
    ) -> None:
        """Call `handle(facts)` with the facts of these kinds (`fact_kinds`), in the order they were told.

        It is given all that wait, in a greenlet of its own: the facts of one turn come together, and many cost little
        more than one. When `queue` of them wait already, one more is dropped and counted. After each call, facts are
        gathered for `gather` seconds: what comes after a pause is handed over at once, what comes steadily, together.
        """

    def wall(self, time: float) -> float:
        """Seconds since the epoch of a time of the engine's clock, as facts have it."""

    def mark_calls(self, header: str) -> None:
        """Put the Call-ID of a call's first leg under this name (`X-…`) on each INVITE of it into FreeSWITCH, from now
        on; the header is taken off whatever goes to others.

        Raises:
            ValueError: no such header can be sent.
        """

    def mark_requests(self, header: str, value: Callable[[str, int], str]) -> None:
        """Put a header on each web request of a call's flow (`http:`), unless the flow writes it itself, from now on.

        `value(call, number)` makes its value of the id of the call and the number of the job (`JobDone.number`), ''
        for none. It is called within a turn: it computes, and waits for nothing.
        """

    def perform(self, effect: type[Any], perform: Callable[[Any], Any]) -> None:
        """Do what `PoolEffect`s of this kind ask for, where a connection of the service is needed for that.

        Raises:
            ValueError: somebody does already.
        """

    def begin(self, effect: type[Any], begin: Callable[[Any, Callable[[Any], None]], None]) -> None:
        """The same where many requests share one connection, without a greenlet for each: `begin(effect, done)` starts
        one and returns; it waits for nothing. `done(result or StepError)` ends it, from wherever the answer is read.

        Raises:
            ValueError: somebody does already.
        """

    def tell_work(self, call: str, kind: type[Any], message: Any) -> bool:
        """Give a message to the `CallWork`s of a kind that are bound to a call, in a turn of its own: their `told` is
        called. Returns False when the server has no room for more inputs."""

    def spawn(self, work: Callable[[], object]) -> None:
        """Run `work()` in a greenlet from when the server is ready until it stops. When it raises, that is logged, and
        it is begun anew: after a second, then two, at most 60."""

    def counter(self, name: str, doc: str, read: Callable[[], Any], labels: tuple[str, ...] = ()) -> None:
        """Export a number that only grows, as `orchestrator_service_<service>_<name>_total`."""

    def gauge(self, name: str, doc: str, read: Callable[[], Any], labels: tuple[str, ...] = ()) -> None:
        """Export a number that goes up and down, as `orchestrator_service_<service>_<name>`."""

    def health(self, complaint: Callable[[], str]) -> None:
        """What /readyz says is degraded; '' for nothing. The server goes on taking calls."""

    def log(self, level: str, text: str, **facts: Any) -> None:
        """A line in the log of the server: `debug`, `info`, `warning` or `error`."""


class Runs(Protocol):
    """What `Service.make` returns."""

    def start(self) -> None:
        """Begin; called before the server takes calls. What it raises keeps the server from starting."""

    def stop(self) -> None:
        """End; called once, after the last call, when the greenlets of the service are gone. It has five seconds."""


class SettingMistake(NamedTuple):
    """What is wrong with the settings of a service, beside the events of the site."""

    path: tuple[str | int, ...]
    """Where: keys and indexes below the name of the service."""
    message: str
    written: str = ""
    known: Collection[str] = ()
    """What was written, and what could be meant by it."""


Events = Mapping[str, EventSpec]


def no_mistakes(settings: Any, events: Events) -> Iterable[SettingMistake]:
    """Of a service whose settings name no events."""
    return ()


@dataclass(frozen=True, slots=True)
class Service:
    """The declaration of a service, which its entry point names."""

    name: str
    """A word of small letters, digits and `_`: in `services:`, in metrics, and of the entry point."""
    doc: str
    make: Callable[[ServerContext, Any], Runs]
    """Mostly a class: it is given the context and an instance of `settings`."""
    settings: type[BaseModel] = NoSettings
    check: Callable[[Any, Events], Iterable[SettingMistake]] = no_mistakes
    """`check(settings, events)`: what cannot be with these events, for `orchestrator check` and the start."""

    def __post_init__(self) -> None:
        check_name(self.name, "service")


def find_service(name: str, find: Find = installed) -> Service | None:
    """The installed service of that name; None when there is none. Raises OrchestratorError: it cannot be used."""
    return load_named(find, SERVICE_GROUP, name, Service, "service")


def service_names(find: Find = installed) -> list[str]:
    """The names of all that are installed; none of their packages is loaded."""
    return names_of(find, SERVICE_GROUP)
