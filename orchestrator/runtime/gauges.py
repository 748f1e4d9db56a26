"""What /metrics says about a running server: a reading for each number that the parts count by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from orchestrator.core.engine import Engine
from orchestrator.core.faults import Faults
from orchestrator.runtime.cdr import CdrFile
from orchestrator.runtime.esl_link import EslLink
from orchestrator.runtime.esl_server import EslListener
from orchestrator.runtime.jobs import Jobs
from orchestrator.runtime.metrics import Metrics
from orchestrator.runtime.pool import Pool
from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.udp import UdpTransport


def export_reactor(metrics: Metrics, reactor: Reactor, faults: Faults) -> None:
    """Overload and trouble of the loop itself."""
    metrics.gauge("input_age_seconds", "How long the input taken up last had waited.", lambda: reactor.age)
    metrics.gauge("inbox_waiting", "Inputs waiting in the inbox.", lambda: reactor.waiting)
    metrics.counter(
        "inputs_late",
        "Inputs that had waited longer than this when they were taken up.",
        lambda: {"50ms": reactor.late_50ms, "200ms": reactor.late_200ms},
        ("over",),
    )
    metrics.counter("inputs_refused", "Inputs rejected because the inbox was full.", lambda: reactor.refused)
    metrics.counter("turns_slow", "Turns of more than 50 ms.", lambda: reactor.slow_turns)
    metrics.counter(
        "reactor_stalls", "Sources of inputs that had stopped and were woken by the watchdog.", lambda: reactor.stalls
    )
    metrics.counter(
        "turns_failed",
        "Turns that ended in an exception: each one is a bug.",
        lambda: reactor.failed_turns + faults.count,
    )


def export_transports(metrics: Metrics, transports: Sequence[UdpTransport]) -> None:
    """Datagrams and what became of them."""

    def errors() -> Mapping[str, float]:
        return sum((transport.errors for transport in transports), Counter())

    metrics.counter(
        "datagrams",
        "SIP datagrams received and sent.",
        lambda: {"in": sum(t.received for t in transports), "out": sum(t.sent for t in transports)},
        ("direction",),
    )
    metrics.counter("transport_errors", "Datagrams refused by the system or the network.", errors, ("error",))


def export_cdr(metrics: Metrics, cdr: CdrFile) -> None:
    """Call detail records."""
    metrics.counter("cdr_written", "Call records written.", lambda: cdr.written)
    metrics.counter("cdr_dropped", "Call records lost because the file could not be written.", lambda: cdr.dropped)
    metrics.gauge("cdr_waiting", "Call records waiting to be written.", lambda: cdr.waiting)


def export_jobs(metrics: Metrics, jobs: Jobs) -> None:
    """Pools, and the HTTP client behind one of them."""

    def each(read: Callable[[Pool], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {pool.name: read(pool) for pool in jobs.pools}

    metrics.gauge("jobs_running", "Jobs at work.", each(lambda pool: pool.running), ("pool",))
    metrics.gauge("jobs_waiting", "Jobs waiting for a worker.", each(lambda pool: pool.waiting), ("pool",))
    metrics.counter("jobs_done", "Jobs answered by a worker.", each(lambda pool: pool.done), ("pool",))
    metrics.counter("jobs_refused", "Jobs refused by a full backlog.", each(lambda pool: pool.refused), ("pool",))
    metrics.counter(
        "jobs_crashed", "Jobs that ended in an exception: each one is a bug.", each(lambda p: p.crashed), ("pool",)
    )
    http = jobs.http
    metrics.counter("http_tries", "Tries of HTTP exchanges.", lambda: dict(http.outcomes), ("outcome",))
    metrics.counter("http_retries", "Tries after the first one.", lambda: http.retries)
    metrics.gauge("http_circuits_open", "Hosts that are left alone after failures.", lambda: http.open_circuits)


def export_listener(metrics: Metrics, listener: EslListener) -> None:
    """Connections that FreeSWITCH's dialplan has opened."""
    metrics.gauge("socket_sessions", "Channels handed over by a dialplan.", lambda: len(listener.sessions))
    metrics.counter(
        "socket_connections",
        "Connections of FreeSWITCH dialplans by what became of them.",
        lambda: dict(listener.counters),
        ("outcome",),
    )


def export_links(metrics: Metrics, links: Mapping[str, EslLink]) -> None:
    """The Event Socket links, by server."""

    def each(read: Callable[[EslLink], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {name: read(link) for name, link in links.items()}

    def counter(name: str, doc: str, read: Callable[[EslLink], float]) -> None:
        metrics.counter(f"esl_{name}", doc, each(read), ("server",))

    metrics.gauge("esl_up", "1 while the link is up.", each(lambda link: link.state == "up"), ("server",))
    metrics.gauge(
        "esl_lag_seconds", "Age of the last HEARTBEAT when it came.", each(lambda link: link.load.lag), ("server",)
    )
    metrics.gauge("freeswitch_sessions", "Sessions of the server.", each(lambda link: link.load.sessions), ("server",))
    counter("connects", "Connections made.", lambda link: link.counters.connects)
    counter("drops", "Connections lost.", lambda link: link.counters.drops)
    counter("events", "Events received.", lambda link: link.counters.events)
    counter("commands", "Commands sent.", lambda link: link.counters.commands)
    counter("timeouts", "Commands without a reply in time.", lambda link: link.counters.timeouts)
    counter("lost_events", "Events FreeSWITCH says it has thrown away.", lambda link: link.counters.lost_events)
    counter("malformed", "Malformed frames.", lambda link: link.counters.malformed)


def export_engine(metrics: Metrics, engine: Engine) -> None:
    """SIP, registrations and flows."""
    stats = engine.flows.stats
    metrics.gauge("transactions", "Transactions, those that linger included.", lambda: len(engine.layer))
    layer, location = engine.layer, engine.location
    metrics.gauge("transactions_unanswered", "Requests without a final answer.", lambda: layer.unanswered)
    metrics.gauge("transactions_lingering", "Transactions kept for repetitions.", lambda: layer.lingering)
    metrics.gauge("transactions_octets", "Octets of the messages they began with.", lambda: layer.octets)
    metrics.counter(
        "bindings_refused",
        "Registrations refused: limits: bindings, bindings_per_source.",
        lambda: dict(location.refused),
        ("limit",),
    )
    metrics.gauge("timers", "Timers in memory, cancelled ones included.", lambda: engine.timers.held)
    metrics.gauge("overload", "Share of new calls refused because inputs wait too long.", lambda: engine.overload.share)
    metrics.gauge("calls", "Calls of flows.", lambda: len(engine.calls))
    metrics.gauge("bindings", "Registered contacts.", lambda: len(engine.location))
    metrics.gauge("flow_runs", "Flows running or waiting.", lambda: len(engine.flows.runs))
    metrics.gauge("subscriptions", "Armed subscriptions.", lambda: len(engine.bus))
    prober = engine.gateways.prober
    metrics.gauge(
        "gateway_up",
        "1 while calls are sent to the gateway.",
        lambda: {name: float(up) for name, up in prober.states().items()},
        ("gateway",),
    )
    admission = engine.admission
    metrics.gauge("sources", "Sources remembered.", lambda: len(admission))
    metrics.gauge("sources_banned", "Sources banned now.", lambda: len(admission.banned(engine.timers.now)))
    metrics.counter("source_bans", "Bans of sources.", lambda: admission.bans)
    metrics.counter(
        "datagrams_unread",
        "Datagrams dropped before they were read, of a source that is banned or has had its share, or of strangers.",
        lambda: dict(admission.dropped),
        ("reason",),
    )
    metrics.counter("core", "What the core counts, by name.", lambda: dict(engine.counters), ("event",))
    translator, channels = engine.translator, engine.channels
    metrics.counter(
        "esl_events_odd",
        "Duplicate, orphaned or out-of-order FreeSWITCH events.",
        lambda: {"duplicate": translator.duplicates, "orphan": translator.orphans, "reordered": channels.reordered},
        ("kind",),
    )
    metrics.counter("flow_runs_started", "Flows started.", lambda: stats.runs)
    metrics.counter("flow_runs_refused", "Flows not started: limits: runs, runs_per_flow.", lambda: stats.refused)
    metrics.counter("flow_circles", "Flows ended that start each other: limits: chain.", lambda: stats.circles)
    metrics.counter("flow_runs_failed", "Flows that ended in an error.", lambda: stats.failed)
    metrics.counter("flow_handler_errors", "Handlers that ended in an error.", lambda: stats.handler_errors)
    metrics.counter(
        "flow_background_failed",
        "Background steps that could not start; the flow continued.",
        lambda: stats.background_failed,
    )
    metrics.counter("flow_events_dropped", "Events a full queue did not take.", lambda: stats.dropped)
    metrics.counter("flow_faults", "Exceptions that are bugs of an action or the host.", lambda: stats.faults)
