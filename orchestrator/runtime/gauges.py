"""What /metrics says about a running server: a reading for each number that the parts count by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from orchestrator import BUILD, __version__
from orchestrator.core.engine import Engine
from orchestrator.core.faults import Faults
from orchestrator.packages.transport import Transport
from orchestrator.runtime.admin import Admin
from orchestrator.runtime.cdr import CdrFile
from orchestrator.runtime.errands import Errands
from orchestrator.runtime.esl_link import EslLink
from orchestrator.runtime.esl_server import EslListener
from orchestrator.runtime.incoming import Incoming
from orchestrator.runtime.jobs import Jobs
from orchestrator.runtime.log import Limiter
from orchestrator.runtime.metrics import Metrics
from orchestrator.runtime.pool import Pool
from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.services import Host, Services
from orchestrator.runtime.streams.connections import Connections
from orchestrator.runtime.streams.tls import Certificates
from orchestrator.sip.location import Location
from orchestrator.sip.reasons import REASONS


def export_reactor(metrics: Metrics, reactor: Reactor, faults: Faults) -> None:
    """Overload and trouble of the loop itself."""
    metrics.gauge("input_age_seconds", "Seconds that the latest input waited in the inbox.", lambda: reactor.age)
    metrics.gauge("inbox_waiting", "Inputs waiting in the inbox.", lambda: reactor.waiting)
    metrics.counter(
        "inputs_late",
        "Inputs that waited in the inbox for longer than `over`.",
        lambda: {"50ms": reactor.late_50ms, "200ms": reactor.late_200ms},
        ("over",),
    )
    metrics.counter("inputs_refused", "Inputs rejected because the inbox was full.", lambda: reactor.refused)
    metrics.histogram("turn_seconds", "Seconds that turns took.", lambda: {"": reactor.turns.reading})
    metrics.counter("turns_slow", "Turns of more than 50 ms.", lambda: reactor.slow_turns)
    metrics.counter("reactor_stalls", "Stalled input sources that the watchdog restarted.", lambda: reactor.stalls)
    metrics.counter(
        "turns_failed",
        "Turns that ended in an exception; each one is a bug.",
        lambda: reactor.failed_turns + faults.count,
    )


def export_transports(metrics: Metrics, transports: Sequence[Transport]) -> None:
    """Datagrams and what became of them."""

    def errors() -> Mapping[str, float]:
        return sum((transport.errors for transport in transports), Counter())

    metrics.counter(
        "datagrams",
        "SIP messages received and sent.",
        lambda: {"in": sum(t.received for t in transports), "out": sum(t.sent for t in transports)},
        ("direction",),
    )
    metrics.counter(
        "transport_errors", "Errors of the kernel or the network at a socket, by error.", errors, ("error",)
    )


def export_connections(metrics: Metrics, connections: Connections) -> None:
    """Those of all transports that have some, but for packages."""

    def named(reasons: Counter[str]) -> Callable[[], Mapping[str, float]]:
        return lambda: {why or "closed": count for why, count in reasons.items()}

    metrics.gauge("connections", "Connections, by transport.", lambda: dict(connections.standing), ("transport",))
    metrics.counter(
        "connections_opened", "Connections established, by who opened them.", lambda: dict(connections.opened), ("by",)
    )
    metrics.counter(
        "connections_refused",
        "Connections refused before anything was read, by reason.",
        lambda: dict(connections.refused),
        ("reason",),
    )
    metrics.gauge(
        "connections_octets",
        "Octets of messages begun to be read or written.",
        lambda: connections.octets,
    )
    metrics.counter(
        "connections_ended",
        "Established connections that have ended, by reason.",
        named(connections.ended),
        ("reason",),
    )
    metrics.counter(
        "connections_failed",
        "Connections that ended before they were established, by reason.",
        named(connections.unopened),
        ("reason",),
    )


def export_certificates(metrics: Metrics, certificates: Certificates) -> None:
    """What connections over TLS are shown."""
    metrics.gauge(
        "tls_certificate_expires", "When our certificate expires, in seconds since 1970.", lambda: certificates.expires
    )
    metrics.counter("tls_certificate_loads", "Loads of the files of sip: tls:.", lambda: certificates.loads)


def export_cdr(metrics: Metrics, cdr: CdrFile) -> None:
    """Call detail records."""
    metrics.counter("cdr_written", "Call records written.", lambda: cdr.written)
    metrics.counter("cdr_dropped", "Call records lost because the file could not be written.", lambda: cdr.dropped)
    metrics.gauge("cdr_waiting", "Call records waiting to be written.", lambda: cdr.waiting)


class _History(Protocol):
    """The history of calls (`views.call_history`)."""

    octets: int
    dropped: int
    refused: int

    def __len__(self) -> int: ...


class _Archive(Protocol):
    """The archive of calls (`archive.call_archive`)."""

    written: int
    dropped: int
    deleted: int

    @property
    def waiting(self) -> int: ...


def export_history(metrics: Metrics, history: _History) -> None:
    """What is kept of calls in memory."""
    metrics.gauge("history_octets", "Octets of the histories of calls.", lambda: history.octets)
    metrics.gauge("history_calls", "Calls whose history is kept, live ones included.", lambda: len(history))
    metrics.counter("history_dropped", "Messages, events and jobs left out of histories.", lambda: history.dropped)
    metrics.counter("history_calls_refused", "Calls without a history, for want of memory.", lambda: history.refused)


def export_archive(metrics: Metrics, archive: _Archive) -> None:
    """What is kept of calls on disk."""
    metrics.counter("archive_written", "Calls written to the archive.", lambda: archive.written)
    metrics.counter("archive_dropped", "Calls lost because the archive could not be written.", lambda: archive.dropped)
    metrics.counter("archive_deleted", "Calls deleted from the archive for their age.", lambda: archive.deleted)
    metrics.gauge("archive_waiting", "Calls waiting to be written to the archive.", lambda: archive.waiting)


def export_admin(metrics: Metrics, admin: Admin, unauthorized: Mapping[str, float]) -> None:
    """The admin interface itself; `unauthorized`: requests refused, by reason."""
    metrics.counter(
        "admin_unauthorized",
        "Requests to the admin interface refused, by reason: no_token, wrong_token, scope, origin, rate.",
        lambda: dict(unauthorized),
        ("reason",),
    )
    metrics.counter(
        "admin_connections_refused",
        "Connections to the admin interface cut because too many waited, or refused because their turn did not come.",
        lambda: admin.refused,
    )
    metrics.counter("admin_malformed", "Requests to the admin interface that are no HTTP.", lambda: admin.malformed)
    metrics.gauge("admin_streams", "Answers of the admin interface that go on.", lambda: admin.streams)


def export_jobs(metrics: Metrics, jobs: Jobs) -> None:
    """Pools, and the HTTP client behind one of them."""

    def each(read: Callable[[Pool | Errands], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {pool.name: read(pool) for pool in jobs.pools}

    metrics.gauge("jobs_running", "Jobs that a worker is executing.", each(lambda pool: pool.running), ("pool",))
    metrics.gauge("jobs_waiting", "Jobs waiting for a worker.", each(lambda pool: pool.waiting), ("pool",))
    metrics.counter("jobs_done", "Jobs finished by a worker.", each(lambda pool: pool.done), ("pool",))
    metrics.counter(
        "jobs_refused", "Jobs rejected because the backlog was full.", each(lambda pool: pool.refused), ("pool",)
    )
    metrics.counter(
        "jobs_crashed", "Jobs that ended in an exception: each one is a bug.", each(lambda p: p.crashed), ("pool",)
    )
    http = jobs.http
    metrics.counter(
        "http_tries", "HTTP attempts, retries included, by outcome.", lambda: dict(http.outcomes), ("outcome",)
    )
    metrics.counter("http_retries", "HTTP retries.", lambda: http.retries)
    metrics.gauge("http_circuits_open", "HTTP hosts blocked after failures.", lambda: http.open_circuits)


def export_listener(metrics: Metrics, listener: EslListener) -> None:
    """Connections that FreeSWITCH's dialplan has opened."""
    metrics.gauge("socket_sessions", "Channels handed over by a dialplan.", lambda: len(listener.sessions))
    metrics.counter(
        "socket_connections",
        "Connections from FreeSWITCH dialplans, by outcome.",
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
        "esl_lag_seconds",
        "Age in seconds of the latest HEARTBEAT on arrival.",
        each(lambda link: link.load.lag),
        ("server",),
    )
    metrics.gauge(
        "freeswitch_sessions", "Sessions on the FreeSWITCH server.", each(lambda link: link.load.sessions), ("server",)
    )
    counter("connects", "Connections made.", lambda link: link.counters.connects)
    counter("drops", "Connections lost.", lambda link: link.counters.drops)
    counter("events", "Events received.", lambda link: link.counters.events)
    counter("commands", "Commands sent.", lambda link: link.counters.commands)
    counter("timeouts", "Commands whose reply timed out.", lambda link: link.counters.timeouts)
    counter("refusals", "Logins and connections that FreeSWITCH refused.", lambda link: link.counters.refusals)
    counter("octets", "Octets received.", lambda link: link.counters.octets)
    counter("unsolicited", "Replies to no command of ours.", lambda link: link.counters.unsolicited)
    counter("stalls", "Times that the reader waited because its queue was full.", lambda link: link.counters.stalls)
    counter(
        "handler_errors",
        "Events whose handling ended in an exception; each one is a bug.",
        lambda link: link.counters.handler_errors,
    )
    counter("lost_events", "Events that FreeSWITCH reported as dropped.", lambda link: link.counters.lost_events)
    counter("malformed", "Malformed frames.", lambda link: link.counters.malformed)


def export_services(metrics: Metrics, services: Services) -> None:
    """Services of packages, by name."""

    def each(read: Callable[[Host], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {name: read(host) for name, host in services.hosts.items()}

    def counter(name: str, doc: str, read: Callable[[Host], float]) -> None:
        metrics.counter(f"service_{name}", doc, each(read), ("service",))

    counter("events_published", "Events raised by the service.", lambda host: host.published)
    counter("events_refused", "Events not taken: no room for more inputs, or not ready.", lambda host: host.refused)
    counter("events_handled", "Events the service has taken.", lambda h: sum(sink.handled for sink in h.sinks))
    counter(
        "events_dropped", "Events lost to the service: its queue was full.", lambda h: sum(s.dropped for s in h.sinks)
    )
    counter("faults", "Exceptions in the code of the service; each one is a bug of it.", lambda host: host.faults)


def export_incoming(metrics: Metrics, incoming: Incoming) -> None:
    """Events of other programs."""
    metrics.counter(
        "events_in",
        "Events that others wanted to be raised: raised, invalid, of no such call, no room for them.",
        lambda: dict(incoming.outcomes),
        ("outcome",),
    )


def export_log(metrics: Metrics, limiter: Limiter) -> None:
    """The log itself."""
    metrics.counter("log_lines_suppressed", "Log lines left out by the rate limit.", lambda: limiter.suppressed)


def export_location(metrics: Metrics, location: Location) -> None:
    """Registrations and where they are kept."""
    metrics.gauge("bindings", "Registered contacts.", lambda: len(location))
    metrics.counter(
        "bindings_refused",
        "Registrations rejected by limits: bindings, bindings_per_source (source), addresses_per_user (user).",
        lambda: dict(location.refused),
        ("limit",),
    )
    metrics.counter(
        "bindings_unwritten", "Expired bindings that the store could not delete.", lambda: location.unwritten
    )
    metrics.gauge("location_up", "1 while registrations can be stored.", lambda: float(not location.trouble))
    metrics.counter("location_write_failures", "Writes that the location store refused.", lambda: location.failures)


def export_engine(metrics: Metrics, engine: Engine) -> None:
    """What one core counts, and which build it is."""
    which: dict[tuple[str, ...], float] = {(__version__, BUILD): 1}
    metrics.gauge("build", "Version and build that run.", lambda: which, ("version", "build"))
    metrics.counter("core", "Counters of the core, by event.", lambda: dict(engine.counters), ("event",))
    metrics.counter("events_published", "Events raised.", lambda: engine.bus.published)
    metrics.gauge("timers", "Timers in memory, cancelled ones included.", lambda: engine.timers.held)
    metrics.gauge("overload", "Share of new calls rejected by overload control, 0 to 1.", lambda: engine.overload.share)
    metrics.gauge("calls", "Calls handled by flows.", lambda: len(engine.calls))
    metrics.gauge("wakes", "Calls and texts waiting for phones to wake up.", lambda: len(engine.wakers))
    _export_sip(metrics, engine)
    _export_measures(metrics, engine)
    _export_sources(metrics, engine)
    _export_peers(metrics, engine)
    _export_flows(metrics, engine)


def _export_sip(metrics: Metrics, engine: Engine) -> None:
    """Transactions, look-ups, writes of the location store."""
    layer, writes, names = engine.layer, engine.registrations.writes, engine.network.names
    metrics.gauge("transactions", "SIP transactions, answered ones included.", lambda: len(layer))
    metrics.gauge("transactions_unanswered", "Server transactions without a final response.", lambda: layer.unanswered)
    metrics.gauge("transactions_lingering", "Answered transactions kept for retransmissions.", lambda: layer.lingering)
    metrics.gauge("transactions_octets", "Octets of the requests kept by transactions.", lambda: layer.octets)
    metrics.counter(
        "transaction_inputs_ignored",
        "Messages and timers that a transaction ignored in its state, by transaction, state and input.",
        lambda: dict(layer.ignored),
        ("input",),
    )
    metrics.counter(
        "transactions_unattended",
        "INVITEs that nothing looked after any more and that were answered 500; each one is a bug.",
        lambda: layer.unattended,
    )
    metrics.gauge("location_writes", "Registrations that wait for the location store.", lambda: writes.under_way)
    metrics.gauge("lookups", "Host names being looked up.", lambda: len(names))
    metrics.counter(
        "lookups_refused", "Host names not looked up because too many look-ups were running.", lambda: names.refused
    )


def _export_measures(metrics: Metrics, engine: Engine) -> None:
    """Distributions and counts with labels."""
    measures = engine.measures
    metrics.histogram(
        "post_dial_delay_seconds",
        "Seconds from the INVITE to the first response that says it rings, by flow.",
        lambda: measures.post_dial_delay.readings,
        "flow",
    )
    metrics.histogram(
        "call_setup_seconds",
        "Seconds from the INVITE to its answer, by flow.",
        lambda: measures.setup_time.readings,
        "flow",
    )
    metrics.histogram(
        "push_wakeup_seconds",
        "Seconds from a push for a request to the registration of the phone, by push service.",
        lambda: measures.wakeup_time.readings,
        "service",
    )
    metrics.counter(
        "calls_ended",
        "Calls of flows that have ended, by flow and final status.",
        lambda: measures.calls_ended.counts,
        ("flow", "code"),
    )
    metrics.counter(
        "gateway_branches",
        "Branches of calls to gateways, by gateway and final status.",
        lambda: measures.gateway_branches.counts,
        ("gateway", "code"),
    )
    metrics.counter(
        "requests_answered",
        "Requests that got a final response from a transaction, by method and code.",
        lambda: _by_method(engine.layer.answers),
        ("method", "code"),
    )


def _by_method(answers: Mapping[tuple[bytes, int], int]) -> Mapping[tuple[str, ...], float]:
    """Codes that no RFC has are told by their class: they are others' to choose."""
    found: dict[tuple[str, ...], float] = {}
    for (method, status), number in list(answers.items()):
        key = method.decode(), str(status) if status in REASONS else f"{status // 100}xx"
        found[key] = found.get(key, 0) + number
    return found


def _export_sources(metrics: Metrics, engine: Engine) -> None:
    """The shares of sources."""
    admission = engine.admission
    metrics.gauge("sources", "Source addresses in the rate-limit table.", lambda: len(admission))
    metrics.gauge(
        "sources_banned", "Source addresses currently banned.", lambda: len(admission.banned(engine.timers.now))
    )
    metrics.counter("source_bans", "Bans of sources, by reason.", lambda: dict(admission.bans), ("reason",))
    metrics.counter(
        "datagrams_unread",
        "Datagrams dropped unread because of a ban or a rate limit, by reason.",
        lambda: dict(admission.dropped),
        ("reason",),
    )


def _export_peers(metrics: Metrics, engine: Engine) -> None:
    """Gateways and FreeSWITCH servers."""
    gateways = engine.gateways
    metrics.gauge(
        "gateway_up",
        "1 while the probed gateway is up, 0 while it is down or disabled.",
        lambda: {name: float(up) for name, up in gateways.states().items()},
        ("gateway",),
    )
    servers = engine.servers.acceptance.prober
    metrics.gauge(
        "freeswitch_takes_calls",
        "1 while the SIP side of the FreeSWITCH server takes our calls, 0 while it does not.",
        lambda: {name: float(up) for name, up in servers.states().items()},
        ("server",),
    )
    translator, channels = engine.esl_events.translator, engine.channels
    metrics.counter(
        "esl_events_odd",
        "Duplicate, orphaned or out-of-order FreeSWITCH events.",
        lambda: {"duplicate": translator.duplicates, "orphan": translator.orphans, "reordered": channels.reordered},
        ("kind",),
    )


def _export_flows(metrics: Metrics, engine: Engine) -> None:
    """Runs, their traces and what has gone wrong in them."""
    stats = engine.flows.stats
    metrics.gauge("flow_runs", "Flows running or waiting.", lambda: len(engine.flows.runs))
    memory = engine.flows.trace_memory
    metrics.gauge("trace_octets", "Octets of the traces of all runs.", lambda: memory.octets)
    metrics.gauge("subscriptions", "Active subscriptions of flows.", lambda: len(engine.bus))
    metrics.counter("flow_runs_started", "Flows started.", lambda: stats.runs)
    metrics.counter(
        "flow_runs_refused", "Flows not started because of limits: runs, runs_per_flow.", lambda: stats.refused
    )
    metrics.counter(
        "flow_circles",
        "Flows that started each other in a circle and were ended by limits: chain.",
        lambda: stats.circles,
    )
    metrics.counter("flow_runs_failed", "Flows that ended in an error.", lambda: stats.failed)
    metrics.counter(
        "flow_filter_errors", "Events not delivered because a where: ended in an error.", lambda: stats.filter_errors
    )
    metrics.counter("flow_results_stale", "Results of steps that had been ended.", lambda: stats.stale)
    metrics.counter("flow_handler_errors", "Handlers that ended in an error.", lambda: stats.handler_errors)
    metrics.counter(
        "flow_background_failed",
        "Background steps that could not start; the flow continued.",
        lambda: stats.background_failed,
    )
    metrics.counter("flow_events_dropped", "Events dropped because a queue of a flow was full.", lambda: stats.dropped)
    metrics.counter("flow_faults", "Exceptions in an action or its host; each one is a bug.", lambda: stats.faults)
