"""Services of packages: what they may use, and that what goes wrong in them costs nobody else anything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import gevent
import pytest
from echo_core import wait_until
from gevent.event import Event
from pydantic import BaseModel, ConfigDict

from orchestrator.errors import InputError, OrchestratorError
from orchestrator.events.bus import Bus
from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.loader import Source, load_sources
from orchestrator.flow.run.traits import PoolEffect
from orchestrator.history import CallRecord
from orchestrator.packages.groups import SERVICE_GROUP
from orchestrator.packages.service import Raised, ServerContext, Service, find_service
from orchestrator.runtime import services as services_module
from orchestrator.runtime.admin import Health
from orchestrator.runtime.gauges import export_services
from orchestrator.runtime.http import HttpClient
from orchestrator.runtime.jobs import Jobs
from orchestrator.runtime.metrics import Metrics
from orchestrator.runtime.services import Host, Services, Tap
from orchestrator.settings import read_settings
from orchestrator.testing.world import World
from orchestrator.timers import Timers

FLOW = """flowlang: 1
flows:
  rings:
    on: {event: door}
    do:
      - log: 'door ${event.number}'
  call:
    on: invite
    do:
      - subscribe: key
        do: [log: 'key ${event.number}']
      - log: '${call.id}'
      - sleep: 10s
      - reply: 486
"""
DOOR = EventSpec("door", "Somebody is there.", "global", {"number": Attribute("number", "number")})
KEY = EventSpec("key", "A key.", "call", {"number": Attribute("number", "number")})


class Doorbell(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    port: int
    loud: bool = False


class Idle:
    """A service that does what its test says."""

    def __init__(self, context: ServerContext, settings: Any) -> None:
        self.context = context

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


class Stage:
    """Services around an engine, on virtual wires."""

    def __init__(self) -> None:
        program, _ = load_sources([Source("f.flow.yaml", FLOW)], events=(*BUILTIN_EVENTS, DOOR, KEY))
        self.world = World(program)
        self.world.engine.flows.launch()
        self.logged: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.logged.append(effect.text)
        self.room = True
        self.jobs = Jobs(lambda job, result: None, HttpClient(), {})
        self.metrics, self.health = Metrics(), Health()
        self.services = Services(self.world.engine, self.offer, self.metrics, self.health, self.jobs)
        export_services(self.metrics, self.services)

    def offer(self, receive: Callable[..., None], *arguments: Any) -> bool:
        if self.room:
            receive(*arguments, self.world.now)
        return self.room

    def host(self, make: Callable[..., Any] = Idle, name: str = "idle") -> Host:
        self.services.add(Service(name, "", make), Doorbell(port=1))
        return self.services.hosts[name]

    def metric(self, name: str) -> float:
        wanted = f"orchestrator_service_{name}"
        text = self.metrics.exposition().decode()
        return float(next(line for line in text.splitlines() if line.startswith(wanted)).split()[-1])


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for limit in ("START_TIME", "STOP_TIME", "DRAIN_TIME"):
        monkeypatch.setattr(services_module, limit, 0.2)
    stage = Stage()
    yield stage
    stage.services.close()
    stage.jobs.close()


# --- sources ----------------------------------------------------------------------------------------------------------


def test_an_event_reaches_the_flows(stage: Stage) -> None:
    host = stage.host()
    stage.services.open()
    assert host.publish("door", {"number": 7})
    stage.world.run()
    assert stage.logged == ["door 7"]
    assert stage.metric('events_published_total{service="idle"}') == 1


def test_what_is_published_before_the_server_is_ready_is_kept(stage: Stage) -> None:
    host = stage.host()
    assert host.publish("door", {"number": 1})
    stage.world.run()
    assert stage.logged == []
    stage.services.open()
    stage.world.run()
    assert stage.logged == ["door 1"]


@pytest.mark.parametrize(
    ("event", "attributes", "call", "complaint"),
    [
        ("dore", {}, "", "there is no event 'dore'"),
        ("door", {"number": "7"}, "", "str is not of type number"),
        ("door", {}, "", "needs attribute 'number'"),
        ("door", {"number": 1}, "a-call", "belongs to no call"),
        ("key", {"number": 1}, "", "needs the id of its call"),
    ],
)
def test_a_wrong_event_is_told_to_who_publishes_it(
    stage: Stage, event: str, attributes: dict[str, Any], call: str, complaint: str
) -> None:
    host = stage.host()
    stage.services.open()
    with pytest.raises(ValueError, match=complaint):
        host.publish(event, attributes, call)


def test_an_event_of_a_call_reaches_its_flow_only(stage: Stage) -> None:
    host = stage.host()
    stage.services.open()
    stage.world.peer("alice", "10.0.0.2").ask("INVITE", "sip:301@example.com")
    stage.world.run(1)
    (call,) = stage.logged
    assert host.publish("key", {"number": 5}, call)
    assert host.publish("key", {"number": 6}, "no-such-call")
    stage.world.run(1)
    assert stage.logged == [call, "key 5"]
    assert stage.world.engine.counters["event.without_call"] == 1


def test_without_room_it_is_refused_and_counted(stage: Stage) -> None:
    host = stage.host()
    stage.services.open()
    stage.room = False
    assert not host.publish("door", {"number": 1})
    assert stage.metric('events_refused_total{service="idle"}') == 1


# --- sinks ------------------------------------------------------------------------------------------------------------


def test_a_glob_stands_for_all_events_that_fit(stage: Stage) -> None:
    host = stage.host()
    heard: list[Raised] = []
    host.listen(["do*"], heard.append)
    with pytest.raises(ValueError, match=r"there is no event 'x\*'"):
        host.listen(["x*"], heard.append)
    stage.services.open()
    assert stage.services.events == {"door"}
    host.publish("door", {"number": 1})
    wait_until(lambda: [event.name for event in heard] == ["door"])


def test_events_that_come_steadily_are_handed_over_together(stage: Stage) -> None:
    """What comes after a pause at once, what comes soon after it in one go."""
    bundles: list[list[Any]] = []
    host = stage.host()
    with pytest.raises(ValueError, match="no event 'dor'"):
        host.listen_together(["dor"], bundles.append)
    host.listen_together(["door"], bundles.append, gather=0.02)
    host.open()
    host.publish("door", {"number": 1})
    wait_until(lambda: len(bundles) == 1)
    host.publish("door", {"number": 2})
    gevent.sleep(0)
    host.publish("door", {"number": 3})
    wait_until(lambda: len(bundles) == 2)
    assert [[event.attributes["number"] for event in bundle] for bundle in bundles] == [[1], [2, 3]]


def test_a_glob_follows_a_reload() -> None:
    bus = Bus(Timers())
    tap = Tap(["do*", "fs", "*"], lambda event: None)
    tap.follow(bus, {"door", "key", "fs"})
    assert tap.names == {"door", "key", "fs"}
    tap.follow(bus, {"dog"})
    assert [name for name in ("door", "key", "fs", "dog") if bus.hears(name)] == ["dog"]
    everything = Tap(["*"], lambda event: None)
    everything.follow(bus, {"fs", "fs.link"})
    assert everything.names == {"fs.link"}, "fs is every event of FreeSWITCH"


def test_a_listener_gets_events_outside_of_the_turn(stage: Stage) -> None:
    host = stage.host()
    heard: list[Raised] = []
    host.listen(["door"], heard.append)
    stage.services.open()
    host.publish("door", {"number": 1})
    assert heard == []
    wait_until(lambda: heard)
    assert (heard[0].name, heard[0].attributes, heard[0].call) == ("door", {"number": 1}, "")
    assert heard[0].time == pytest.approx(stage.world.engine.wall)
    assert stage.services.events == {"door"}


def test_an_event_no_flow_hears_is_made_for_a_listener(stage: Stage) -> None:
    heard: list[Raised] = []
    stage.host().listen(["gateway_up"], heard.append)
    assert stage.world.engine.publish("gateway_up", {"gateway": "g", "reason": "OPTIONS"}) == 0
    wait_until(lambda: heard)


def test_one_that_hangs_loses_what_its_queue_has_no_room_for(stage: Stage) -> None:
    host = stage.host()
    host.listen(["door"], lambda event: gevent.sleep(60), queue=2)
    stage.services.open()
    for number in range(9):
        host.publish("door", {"number": number})
    stage.world.run()
    assert len(stage.logged) == 9
    assert stage.metric('events_dropped_total{service="idle"}') == 7


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), SystemExit(1), gevent.Timeout()])
def test_an_exception_in_a_listener_is_counted_and_the_next_event_heard(stage: Stage, bug: BaseException) -> None:
    host = stage.host()
    heard: list[Raised] = []

    def handle(event: Raised) -> None:
        heard.append(event)
        if len(heard) == 1:
            raise bug

    host.listen(["door"], handle)
    stage.services.open()
    host.publish("door", {"number": 1})
    host.publish("door", {"number": 2})
    wait_until(lambda: len(heard) == 2)
    assert stage.metric('faults_total{service="idle"}') == 1


def test_a_listener_of_facts_gets_call_records(stage: Stage) -> None:
    host = stage.host()
    records: list[CallRecord] = []
    host.listen_facts(CallRecord, records.append)
    stage.world.peer("alice", "10.0.0.2").ask("INVITE", "sip:301@example.com")
    stage.world.run(20)
    wait_until(lambda: records)


def test_listeners_finish_what_waits_before_the_service_stops(stage: Stage) -> None:
    order: list[Any] = []

    class Writes(Idle):
        def start(self) -> None:
            self.context.listen(["door"], lambda event: (gevent.sleep(0.01), order.append(event.attributes["number"])))

        def stop(self) -> None:
            order.append("stopped")

    host = stage.host(Writes)
    stage.services.start()
    stage.services.open()
    for number in range(3):
        host.publish("door", {"number": number})
    stage.services.close()
    assert order == [0, 1, 2, "stopped"]
    assert not stage.world.engine.bus.hears("gateway_up")
    assert not host.publish("door", {"number": 4})


# --- what else --------------------------------------------------------------------------------------------------------


def test_a_greenlet_that_fails_is_begun_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services_module, "FIRST_PAUSE", 0.02)
    host = stage.host()
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise OSError("no connection")

    host.spawn(work)
    gevent.sleep(0.01)
    assert runs == []
    stage.services.open()
    wait_until(lambda: stage.health.degradations())
    assert "OSError: no connection" in stage.health.degradations()["service idle"]
    wait_until(lambda: len(runs) == 3)
    assert stage.health.degradations() == {}


def test_its_metrics_and_health_are_shown(stage: Stage) -> None:
    host = stage.host()
    host.gauge("clients", "Clients.", lambda: 3)
    host.counter("broken", "Broken.", lambda: 1 / 0)
    host.health(lambda: "nobody answers")
    host.health(lambda: str(1 / 0))
    assert stage.metric("idle_clients") == 3
    found = stage.health.degradations()["service idle"]
    assert found == "nobody answers; its health check failed: ZeroDivisionError: division by zero"


@dataclass(slots=True)
class Ask(PoolEffect):
    name = "ask_service"

    def perform(self) -> None:
        raise NotImplementedError


def test_it_may_perform_effects(stage: Stage) -> None:
    stage.host().perform(Ask, lambda effect: 1)
    assert any(pool.name == "ask_service" for pool in stage.jobs.pools)


# --- start and stop ---------------------------------------------------------------------------------------------------


def broken(**at: BaseException | None) -> type[Idle]:
    class Broken(Idle):
        def start(self) -> None:
            self.end("start")

        def stop(self) -> None:
            self.end("stop")

        def end(self, where: str) -> None:
            if where in at:
                bug = at[where]
                if bug is None:
                    Event().wait()
                else:
                    raise bug

    return Broken


@pytest.mark.parametrize(
    ("bug", "reason"),
    [
        (OSError("address in use"), "OSError: address in use"),
        (SystemExit(3), "SystemExit: 3"),
        (None, "it took more than 0.2 s"),
    ],
)
def test_one_that_cannot_start_keeps_the_server_from_starting(
    stage: Stage, bug: BaseException | None, reason: str
) -> None:
    stage.host(broken(start=bug))
    with pytest.raises(OrchestratorError, match="the service 'idle' cannot be started: " + reason):
        stage.services.start()


def test_one_that_cannot_be_made_does_so_too(stage: Stage) -> None:
    with pytest.raises(OrchestratorError, match="the service 'idle' cannot be started: ZeroDivisionError"):
        stage.host(lambda context, settings: 1 / 0)


@pytest.mark.parametrize("bug", [ValueError("no"), SystemExit(1), None])
def test_one_that_cannot_stop_holds_nobody_up(stage: Stage, bug: BaseException | None) -> None:
    stopped: list[str] = []

    class Other(Idle):
        def stop(self) -> None:
            stopped.append("other")

    stage.host(Other, "other")
    host = stage.host(broken(stop=bug))
    stage.services.start()
    stage.services.close()
    assert (stopped, host.faults) == (["other"], 1)


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    module = ModuleType("orchestrator_doorbell")
    module.SERVICE = Service("doorbell", "Rings.", Idle, Doorbell)  # type: ignore[attr-defined]
    module.OTHER = 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "orchestrator_doorbell", module)
    found = [EntryPoint("doorbell", "orchestrator_doorbell:SERVICE", SERVICE_GROUP)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [e for e in found if e.group == group])
    return found


def test_its_section_becomes_an_instance_of_its_model(installed: list[EntryPoint]) -> None:
    settings = read_settings("c.yml", "services: {doorbell: {port: 8000, loud: true}}", {})
    assert settings.services == {"doorbell": Doorbell(port=8000, loud=True)}
    assert read_settings("c.yml", "services:", {}).services == {}


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("services:\n  doorbel: {}", "c.yml:2:3", "no installed package has a service 'doorbel'"),
        ("services:\n  doorbell:", "c.yml:2", "a key is missing here"),
        ("services:\n  doorbell: {port: many}", "c.yml:2:20", "'many' is not a whole number"),
        ("services:\n  doorbell: {port: 1, lout: true}", "c.yml:2:23", "unknown key 'lout'"),
        ("services: [doorbell]", "c.yml:1", "a map is expected here"),
        ("services:\n  doorbell: 5", "c.yml:2", "a map is expected here"),
    ],
)
def test_a_mistake_in_it_has_its_place(installed: list[EntryPoint], text: str, place: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_settings("c.yml", text, {})
    (mistake,) = caught.value.diagnostics
    assert str(mistake).startswith(place) and message in mistake.message


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("orchestrator_doorbell:OTHER", "it is no Service"),
        ("orchestrator_doorbell:GONE", "AttributeError"),
        ("nowhere_to_be_found:X", "ModuleNotFoundError"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_at_its_place(
    installed: list[EntryPoint], entry: str, reason: str
) -> None:
    installed[:] = [EntryPoint("doorbell", entry, SERVICE_GROUP)]
    with pytest.raises(InputError, match=rf"c.yml:1:12: error E118.*{entry}.*{reason}"):
        read_settings("c.yml", "services: {doorbell: {port: 1}}", {})


def test_two_packages_with_one_name_are_told_apart(installed: list[EntryPoint]) -> None:
    installed.append(EntryPoint("doorbell", "orchestrator_doorbell:OTHER", SERVICE_GROUP))
    with pytest.raises(OrchestratorError, match="has a service 'doorbell', too"):
        find_service("doorbell")


def test_its_name_is_a_word() -> None:
    with pytest.raises(ValueError, match="cannot be the name of a service"):
        Service("door bell", "", Idle)
