"""What the configuration and the files of a site say, as the core takes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import monotonic, time

from orchestrator.core.settings import (
    LOCATION_TIMEOUT,
    AuthPolicy,
    CoreLimits,
    CoreSettings,
    PingPolicy,
    ServerTimes,
    Site,
    UserCachePolicy,
)
from orchestrator.packages.location_store import ChosenStore
from orchestrator.resources import Resolved
from orchestrator.runtime.interfaces import is_wildcard, outward_address, own_addresses, source_toward
from orchestrator.runtime.transports import transport_kind
from orchestrator.settings import Settings
from orchestrator.settings.model import AuthSettings
from orchestrator.settings.push_sections import PushSettings
from orchestrator.settings.values import Address
from orchestrator.sip.admission import SourceLimits
from orchestrator.sip.points import DEFAULT_PORT, ListenPoint
from orchestrator.sip.push import PushPolicy
from orchestrator.sip.registrar import RegisterPolicy
from orchestrator.sip.transaction import TimerValues


def core_settings(
    settings: Settings, bound: Sequence[tuple[str, int]], age: Callable[[], float], late: Callable[[], float]
) -> CoreSettings:
    """The configuration as the core takes it. `bound` is what the sockets of `sip: listen:` are bound to; `age`,
    `late`: seconds that datagrams wait, see `CoreSettings`."""
    sip = settings.sip
    timers, registrar, where = sip.timers, settings.registrar, settings.location
    return CoreSettings(
        points=tuple(
            point_of(listen.transport, address, sip.advertise)
            for listen, address in zip(sip.listen, bound, strict=True)
        ),
        domains=sip.domains,
        trust=sip.trust,
        nat=sip.nat == "auto",
        digest=sip.digest,
        auth=_auth_policy(settings.auth),
        register=RegisterPolicy(
            min_expires=int(registrar.min_expires),
            raise_short=registrar.too_brief == "raise",
            replace=registrar.on_full == "replace",
            flow_timer=int(registrar.flow_timer or 0),
        ),
        assert_identity=sip.assert_identity == "on",
        gruu=registrar.gruu == "on",
        topology_hiding=sip.topology_hiding == "on",
        ping=PingPolicy(registrar.ping.phones, registrar.ping.every, registrar.ping.missed or 0),
        push=_push_policy(settings.push),
        open_registrar=registrar.without_flow == "anyone",
        events=sip.events,
        times=TimerValues(t1=timers.t1, t2=timers.t2, t4=timers.t4, c=timers.c),
        limits=_limits(settings),
        session_expires=int(sip.session_expires or 0),
        failover_after=sip.failover.after,
        avoid=sip.failover.avoid,
        location_timeout=where.timeout if isinstance(where, ChosenStore) else LOCATION_TIMEOUT,
        age=age,
        late=late,
        entropy=os.urandom,
        sources=SourceLimits(**settings.sources.model_dump()),
        scanners=(settings.scanners.agents, settings.scanners.addresses),
        contacts=settings.contacts.allow,
        source_of=source_toward,
        wall_offset=time() - monotonic(),
    )


def _limits(settings: Settings) -> CoreLimits:
    sip, limits = settings.sip, settings.limits
    return CoreLimits(
        transactions=limits.transactions,
        lingering=limits.lingering,
        octets=limits.transaction_memory,
        message=limits.message,
        subscriptions=limits.subscriptions,
        location_writes=limits.location_writes,
        addresses_per_user=limits.addresses_per_user,
        runs=limits.runs,
        runs_per_flow=limits.runs_per_flow,
        chain=limits.chain,
        trace_memory=limits.trace_memory,
        call_duration=limits.call_duration,
        dialog_ping=sip.dialog_ping or 0.0,
        dialog_missed=sip.dialog_missed or 0,
    )


def _auth_policy(auth: AuthSettings) -> AuthPolicy:
    cache = UserCachePolicy(auth.cache, auth.absent, auth.stale, auth.users)
    return AuthPolicy(auth.qop, auth.nonce, auth.userhash == "on", cache)


def _push_policy(push: PushSettings) -> PushPolicy:
    services = tuple(chosen.service for chosen in push.services.values())
    longest = int(push.max_expires)
    return PushPolicy(services, push.wake, push.awake, push.refresh, push.per_phone, longest, push.unserved)


def point_of(transport: str, bound: tuple[str, int], advertise: Address | None) -> ListenPoint:
    """How others reach a socket: as advertised, else by its address, else by the one this machine shows them."""
    host, port = bound
    everywhere = is_wildcard(host)
    kind, port_there = transport_kind(transport), port
    if advertise is not None:
        name = advertise.host
        if advertise.port and kind.default_port == DEFAULT_PORT:
            port_there = advertise.port
    else:
        name = outward_address(host) if everywhere else host
    return ListenPoint(
        name,
        port_there,
        transport,
        reliable=kind.reliable,
        secure=kind.secure,
        default_port=kind.default_port,
        bound=host,
        aliases=own_addresses(host) if everywhere else (),
        bound_port=port,
        everywhere=everywhere,
        advertised=advertise is not None,
    )


def core_site(resolved: Resolved) -> Site:
    """What the core takes of the files of a site."""
    return Site(
        freeswitch={name: server.sip_uri for name, server in resolved.freeswitch.items()},
        server_times={
            name: ServerTimes(server.lost_after, server.probe) for name, server in resolved.freeswitch.items()
        },
        secrets=resolved.secrets,
        users=resolved.users,
    )
