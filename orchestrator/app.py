"""The composition root: configuration and flows become a server that runs until it is told to stop.

What can fail, fails before anything runs: the flows are checked, the sockets bound and the location store opened, in
this order, so that a second instance is refused its port before it touches the first one's database. Datagrams that
arrive meanwhile wait in the kernel. Then the reactor starts to read, the links to connect, and one line `ready` says
so.

SIGTERM and SIGINT drain: new calls are refused with 503, what is in progress ends by itself, for as long as `stop:` of
the configuration says; who has no answer then is told 503, too. Then flows end, with the time `limits: grace` for their
last steps, and answered calls go on without us. A second one does not wait.

SIGHUP reads configuration, users and flows again (`orchestrator.site`); new calls run the new flows, running ones keep
theirs. With a mistake in any of them the last good state stays in force as a whole, and /readyz says `degraded` until a
reload succeeds.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from socket import gethostname
from time import monotonic, time
from typing import Any, TextIO

import gevent
from gevent.event import Event
from loguru import logger

from orchestrator.admin_access import admin_access
from orchestrator.api.actions import Actions, Operations
from orchestrator.api.reads import Shown
from orchestrator.api.routes import add_api
from orchestrator.archive.call_archive import CallArchive
from orchestrator.archive.ended_calls import EndedCalls
from orchestrator.console.console_page import Desk
from orchestrator.console.console_routes import add_console
from orchestrator.console.doing import Doing
from orchestrator.core.engine import Engine
from orchestrator.core.stopping import end_flows, give_up
from orchestrator.core_settings import core_settings, core_site
from orchestrator.errors import OrchestratorError, StoreError
from orchestrator.esl.translate import needed
from orchestrator.event_choice import Chooser
from orchestrator.freeswitch_links import FreeSwitchLinks
from orchestrator.history import CallRecord
from orchestrator.listening import Listening
from orchestrator.packages.service import find_service
from orchestrator.push.push_metrics import export_pushes
from orchestrator.push.supervisor import Pushes
from orchestrator.reloading import Reloader
from orchestrator.resources import asked_users
from orchestrator.runtime import gauges, log
from orchestrator.runtime.admin import Admin, Health
from orchestrator.runtime.cdr import CdrFile
from orchestrator.runtime.descriptors import note_descriptors
from orchestrator.runtime.esl_server import EslListener, wanted
from orchestrator.runtime.garbage import FullCollections, freeze, making_what_stays, perform
from orchestrator.runtime.http import HttpClient
from orchestrator.runtime.http_host import Guard
from orchestrator.runtime.interfaces import address_text
from orchestrator.runtime.jobs import NO_SESSIONS, Jobs
from orchestrator.runtime.metrics import Metrics
from orchestrator.runtime.news import News
from orchestrator.runtime.pushes import HandPushes
from orchestrator.runtime.reactor import Reactor
from orchestrator.runtime.resolve import Resolver
from orchestrator.runtime.services import Services
from orchestrator.runtime.signals import Signals
from orchestrator.runtime.siptrace import SipTrace
from orchestrator.server_log import log_of_engine, log_of_files, log_of_location
from orchestrator.settings import Settings
from orchestrator.sip.location import Location
from orchestrator.sip.stores import SharedStore
from orchestrator.site import LoadedSite, read_site
from orchestrator.store import open_store
from orchestrator.store.sqlite import SqliteStore
from orchestrator.testing.case_from_trace import case_from_trace
from orchestrator.views.call_history import CallHistory, HistoryBounds
from orchestrator.views.node_status import Identity, Samples

LINGER = 0.5
"""Seconds after the last refusal of a stop: for a CANCEL that waits for a provisional response, and for lost ones."""

POLL = 0.05
"""Seconds between two looks at whether everything has ended."""

HOUSEKEEPING = 10.0

QUIET = ("warning", "error")
"""Levels of the log at which the news of the core are left out."""


def serve(
    settings: Settings,
    environ: Mapping[str, str] = os.environ,
    stream: TextIO | None = None,
    reread: Callable[[], Settings] | None = None,
) -> int:
    """Run a server in the main thread of this process, which should be patched (runtime.patch). Returns 0 after a stop.

    `reread()` gives the configuration anew at a reload; without it, that of the start is kept.

    Raises:
        InputError: the flows or the users have mistakes; nothing was started.
        OrchestratorError: an address is in use (ListenError) or the location store cannot be used.
    """
    out = stream if stream is not None else sys.stderr
    limiter = log.setup(settings.log.level, settings.log.format, out)
    log.adopt(gevent.get_hub())
    site = read_site(settings, environ)
    note_descriptors(settings.sip.streams.connections)
    with ExitStack() as stack:
        server = Server(site, stack, lambda: read_site(reread() if reread is not None else settings, environ))
        gauges.export_log(server.metrics, limiter)
        server.start()
        notice = server.notice.terminal if out.isatty() else server.notice.elsewhere
        out.write(log.render_ready(server.addresses, notice, settings.log.format))
        out.flush()
        server.wait()
    logger.info("stopped")
    return 0


def _case_of(trace: Mapping[str, Any]) -> str:
    """The test that a trace makes, to lie beside the flow. In a thread: the flow file is read and checked for it."""
    return str(gevent.get_hub().threadpool.apply(case_from_trace, (trace, Path(trace["file"]).parent)))


class Server:
    """Everything that runs, put together. `stack` closes what was opened, in reverse order, also when opening fails."""

    def __init__(self, site: LoadedSite, stack: ExitStack, reread: Callable[[], LoadedSite] | None = None) -> None:
        """`reread()` reads the site anew at a reload, in a thread; it raises OrchestratorError."""
        settings = site.settings
        self._settings = settings
        self.reloader = Reloader(settings, reread if reread is not None else lambda: site, self._take)
        self._warnings = site.warnings
        self._stack = stack
        self._stop = Event()
        self._hurry = Event()
        self._serving = self._stopping = False
        self.metrics = Metrics()
        self.health = Health()
        self.access, self.notice = admin_access(settings.admin)
        self.samples = Samples()
        self.listening = Listening(settings, stack)
        self.admin = self._make_admin()
        log_of_files(site)
        self.engine = self._make_engine(site)
        self.cdr = self._open_cdr()
        self.reactor = Reactor(self.engine, lambda job: self.jobs.start(job))
        stack.callback(self.reactor.close)
        self.links = FreeSwitchLinks(self.engine, self.reactor, lambda: self._needed(self.engine.usage.fs))
        self.listener = self._listen_for_dialplans()
        self.pushes = self._make_pushes()
        self.jobs = self._make_jobs()
        stack.callback(lambda: self.links.stop(self._hurry.is_set()))
        self.links.update(site.resolved.freeswitch)
        self.services = self._make_services()
        self._export()

    # --- putting together ---------------------------------------------------------------------------------------------

    def _make_admin(self) -> Admin:
        at = self._settings.admin
        host, port = at.listen.host, at.listen.port
        bounds = at.connections, at.connections_per_client, at.streams
        admin = Admin(host, port, self.health, self.metrics, at.names, *bounds)
        self._stack.callback(admin.close)
        return admin

    def _make_engine(self, site: LoadedSite) -> Engine:
        settings = self._settings
        engine = Engine(
            core_settings(
                settings,
                self.listening.bound,
                lambda: self.reactor.delay,
                lambda: self.reactor.age,
            ),
            self._open_location(),
            site.program,
            monotonic(),
            core_site(site.resolved),
        )
        log_of_engine(engine)
        self.news = News(quiet=settings.log.level in QUIET)
        engine.on_news = self.news.tell
        return engine

    def _make_pushes(self) -> Pushes | None:
        chosen = self._settings.push.services.values()
        if not chosen:
            return None
        pushes = Pushes(chosen, self._answer)
        export_pushes(self.metrics, pushes)
        self.health.add_degradation("push", lambda: pushes.trouble)
        return pushes

    def _make_jobs(self) -> Jobs:
        limits, dns = self._settings.limits, self._settings.sip.dns
        jobs = Jobs(
            self._answer,
            HttpClient(Guard(self._settings.http.allow)),
            self.links.by_name,
            self.listener.sessions if self.listener is not None else NO_SESSIONS,
            resolver=Resolver([(server.host, server.port) for server in dns.servers], dns.timeout),
            pushes=self.pushes,
            http_queue=limits.http_queue,
            esl_queue=limits.esl_queue,
            location_writes=limits.location_writes,
        )
        self._stack.callback(jobs.close)
        return jobs

    def _listen_for_dialplans(self) -> EslListener | None:
        """Where channels are handed over, if anywhere. What flows ask for with `fs` a link tells them, where there is
        one: each event once."""
        at = self._settings.socket.listen
        if at is None:
            return None

        def names() -> set[str]:
            usage = self.engine.usage
            return wanted(self._needed(() if self.links.by_name else usage.fs))

        listener = EslListener(at.host, at.port, self.engine, self.reactor, names)
        self._stack.callback(listener.close)
        return listener

    def _open_location(self) -> Location:
        try:
            store = open_store(self._settings.location)
            self._stack.callback(store.close)
            limits = self._settings.limits
            location = Location(store, limits.contacts_per_aor, limits.bindings, limits.bindings_per_source)
            with making_what_stays():
                location.load(time())
        except StoreError as error:
            raise OrchestratorError(f"location store: {error.detail}") from None
        location.route_key(os.urandom)
        if isinstance(store, SqliteStore) and store.set_aside is not None:
            logger.bind(file=str(store.set_aside)).error("location_set_aside")
        location.on_trouble = log_of_location
        self.health.add_degradation("location", lambda: location.trouble and "registrations cannot be stored")
        gauges.export_location(self.metrics, location)
        return location

    def _open_cdr(self) -> CdrFile | None:
        if self._settings.cdr is None:
            return None
        cdr = CdrFile(self._settings.cdr)
        self._stack.callback(cdr.close)
        self.engine.history.listen(CallRecord, cdr.add)
        return cdr

    def _needed(self, fs: Collection[str]) -> frozenset[str]:
        """Event Socket names that flows and services listen to."""
        return needed(self.engine.usage.events | self.services.events, fs, self.engine.flows.program.events)

    def _make_services(self) -> Services:
        """What packages run beside the server, as far as the configuration names it."""
        node = self._settings.node or gethostname()
        services = Services(self.engine, self.reactor.offer, self.metrics, self.health, self.jobs, node)
        self._stack.callback(services.close)
        for name, settings in self._settings.services.items():
            service = find_service(name)
            if service is None:
                raise OrchestratorError(f"no installed package has a service {name!r}")
            services.add(service, settings)
        if self._settings.sinks:
            from orchestrator.integrations import sinks  # which those without one need not load

            choice = partial(Chooser, events=lambda: self.engine.flows.program.events)
            services.add(sinks.SERVICE, sinks.SinksSettings(sinks=self._settings.sinks, choice=choice))
        return services

    def _export(self) -> None:
        self._serve_api()
        gauges.export_incoming(self.metrics, self.services.incoming)
        gauges.export_reactor(self.metrics, self.reactor, self.engine.faults)
        self.listening.export(self.metrics, self.health)
        gauges.export_jobs(self.metrics, self.jobs)
        gauges.export_admin(self.metrics, self.admin, self.access.refused)
        if self.listener is not None:
            gauges.export_listener(self.metrics, self.listener)
        if self.cdr is not None:
            gauges.export_cdr(self.metrics, self.cdr)
        gauges.export_services(self.metrics, self.services)
        gauges.export_links(self.metrics, self.links.by_name)
        gauges.export_engine(self.metrics, self.engine)
        self.health.add("server", lambda: "" if self._serving else "starting or stopping")
        self.health.add("drain", lambda: "it takes no new calls" if self.engine.draining and self._serving else "")
        self.health.add("reactor", lambda: self.reactor.stalled)
        self.health.add("freeswitch", self.links.complaint)
        self.health.add_degradation("freeswitch", self.links.degradation)
        self.health.add_degradation("users", lambda: self.jobs.users.trouble)
        self.health.add_degradation("reload", lambda: "; ".join(self.reloader.mistakes))

    def _serve_api(self) -> None:
        """/api/v1, and who may ask there."""
        engine = self.engine
        self.siptrace = SipTrace(self._settings.log.level == "debug", engine.history)
        identity = Identity(self._settings.node or gethostname(), time())
        kept = self._settings.admin.history
        history = self.histories = CallHistory(engine, HistoryBounds(kept.memory, kept.calls, kept.messages == "on"))
        gauges.export_history(self.metrics, history)
        ended = self._open_archive(history)
        shown = Shown(engine, identity, self.health, self.samples, self.siptrace, _case_of, history, ended)
        pushes = HandPushes(engine.pusher, engine.registrations.bindings_of, self.reactor.post)
        operations = Operations(self.reloader.reload, log.level_now, self._set_log_level, lambda: self._stopping)
        actions = Actions(engine, self.reactor.post, self.services.incoming, pushes, operations)
        doing = Doing(add_api(self.admin.app, self.access, shown, actions))
        desk = Desk(shown, history, doing, self.access, self._queues, lambda: self._warnings)
        add_console(self.admin.app, desk)
        self._stack.callback(desk.live.close)

    def _open_archive(self, history: CallHistory) -> EndedCalls:
        """Finished calls: those in memory, and those on disk where the configuration says so."""
        chosen = self._settings.admin.archive
        if chosen is None:
            return EndedCalls(history)
        archive = CallArchive(
            chosen.file,
            chosen.days,
            self.engine.history,
            history.facts,
            lambda: monotonic() + self.engine.settings.wall_offset,
        )
        self.archive = archive
        self._stack.callback(archive.close)
        gauges.export_archive(self.metrics, archive)
        self.health.add_degradation("archive", lambda: archive.trouble and f"calls are not archived: {archive.trouble}")
        archive.start()
        return EndedCalls(history, archive)

    def _set_log_level(self, level: str) -> None:
        log.set_level(level)
        self.news.quiet = level in QUIET
        self.siptrace.debug(level == "debug")

    def _queues(self) -> list[dict[str, Any]]:
        """How busy those are who do the work."""
        reactor = self.reactor
        inbox = {"name": "inbox", "running": None, "waiting": reactor.waiting, "refused": reactor.refused}
        names = ("name", "running", "waiting", "refused")
        return [inbox, *({name: getattr(pool, name) for name in names} for pool in self.jobs.pools)]

    # --- running ------------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> str:
        """`udp:127.0.0.1:5060 http://127.0.0.1:8080`, with the ports the system chose where it was asked to."""
        bound = self.listening.addresses
        if self.listener is not None:
            bound.append(f"socket:{address_text(self.listener.address)}")
        return " ".join([*bound, f"http://{address_text(self.admin.address)}"])

    def start(self) -> None:
        """Begin to serve; returns at once."""
        signals = Signals(self.reactor.loop, self._stop_asked, self.reloader.ask)
        self._stack.callback(signals.close)
        self.services.start()
        if self.pushes is not None:
            self.pushes.start()
        self.listening.start(self.reactor, self.engine)
        self.links.start()
        if self.listener is not None:
            self.listener.start()
        self.admin.start()
        self.reactor.run(self._launch)
        self._serving = True
        self.services.open()
        store = self.engine.location.store
        if isinstance(store, SharedStore):
            store.watch(partial(self.reactor.put, self.engine.bindings_changed))
        freeze()
        for keeper in (gevent.spawn(self._keep_house), gevent.spawn(self._count)):
            self._stack.callback(keeper.kill)

    def wait(self) -> None:
        """Until a signal asks to stop; then until what is in progress has ended or its time is over."""
        self._stop.wait()
        self._serving, self._stopping = False, True
        logger.info("draining")
        self.reactor.run(self.engine.drain)
        self._refuse_late()
        self._end_flows()

    def _refuse_late(self) -> None:
        stop, began, engine = self._settings.stop, monotonic(), self.engine
        for seconds, ringing in ((stop.setup, False), (stop.ringing, True)):
            if self._comes_true(lambda: engine.idle and self.jobs.idle, began + seconds):
                return
            self.reactor.run(partial(give_up, engine, engine.faults, ringing or self._hurry.is_set()))
            self._hurry.wait(LINGER)

    def _end_flows(self) -> None:
        engine, flows = self.engine, self.engine.flows
        hung_up = any(call.needs_us for call in engine.calls)
        self.reactor.run(partial(end_flows, flows, (*engine.calls, *engine.sockets), engine.faults))
        last = monotonic() + 2 * flows.limits.grace + LINGER  # `finally` steps, then `on_end`
        self._comes_true(lambda: not flows.runs and engine.idle and engine.host.works.idle and self.jobs.idle, last)
        if hung_up:
            self._hurry.wait(LINGER)  # BYE may be lost

    def _comes_true(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Whether it does before the deadline, and before somebody is in a hurry."""
        while not condition():
            if monotonic() >= deadline or self._hurry.wait(POLL):
                return False
        return True

    def _launch(self, now: float) -> None:
        self.engine.run_timers(now)
        self.engine.flows.launch()

    def _answer(self, job: int, result: object) -> None:
        self.reactor.post(self.engine.complete, job, result)

    def _stop_asked(self, count: int) -> None:
        self._stop.set()
        if count > 1:
            self._hurry.set()

    def _keep_house(self) -> None:
        full = FullCollections(monotonic(), sys.getallocatedblocks())
        while True:
            gevent.sleep(HOUSEKEEPING)
            self.listening.look_at_certificates()
            perform(full.due(monotonic(), self.listening.received, sys.getallocatedblocks(), gc.get_count()[1]))

    def _count(self) -> None:
        """Once a second, for the rates that are shown."""
        while True:
            self.samples.take(self.engine, monotonic())
            gevent.sleep(1.0)

    # --- reload -------------------------------------------------------------------------------------------------------

    def _take(self, site: LoadedSite) -> None:
        """Put what has been read in force: the core in one turn."""
        taken = Event()
        self.reactor.post(self._take_site, site, taken)
        taken.wait()
        self.listening.look_at_certificates()
        self.jobs.users.keep(asked_users(site.resolved))
        self.links.update(site.resolved.freeswitch)

    def _take_site(self, site: LoadedSite, taken: Event, now: float) -> None:
        self.engine.run_timers(now)
        log_of_files(site)
        self.engine.load(site.program, core_site(site.resolved))
        self._warnings = site.warnings
        self.services.events_changed()
        taken.set()
