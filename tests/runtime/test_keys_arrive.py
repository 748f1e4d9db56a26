"""Every key of the configuration arrives where it counts: a value other than the default changes the server.

What a part does with its bound is tested where the part is; here stands that the configuration is what sets it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tls_files import write_authority, write_pair

from orchestrator.app import Server
from orchestrator.runtime.streams.listener import StreamTransport
from orchestrator.runtime.streams.websocket import WebSocketRules, WebSocketServer
from orchestrator.settings import FreeSwitchSettings, Settings, read_settings
from orchestrator.sip.transaction import TimerValues
from orchestrator.site import read_site

FLOW = "flowlang: 1\nflows:\n  mine:\n    on: invite\n    do: [reply: 480]\n"

CONFIG = """\
sip:
  listen: ['udp:127.0.0.1:0', 'udp:127.0.0.1:0', 'ws:127.0.0.1:0', 'tls:127.0.0.1:0']
  advertise: sip.example.net:5070
  domains: [example.net]
  trust: [192.0.2.0/24]
  websocket: {path: /ws, origins: ['https://phone.example.org'], ping: 40s}
  nat: off
  digest: [SHA-256, MD5]
  events: {presence: fs7}
  timers: {t1: 600ms, t2: 5s, t4: 6s, c: 4m}
  dialog_ping: 7m
  dialog_missed: 5
  session_expires: 31m
  assert_identity: on
  topology_hiding: on
  tls:
    {certificate: FOLDER/certificate.pem, key: FOLDER/key.pem, ca: FOLDER/ca.pem, verify: required,
     verify_server: none, versions: '1.3'}
  streams:
    {connections: 41, connections_per_source: 42, connect: 43s, handshake: 44s, message: 45s, idle: 46s, write: 47s,
     write_queue: 1000048, buffered: 1000049}
  dns: {servers: ['192.0.2.53', '192.0.2.54:5353'], timeout: 3s}
  failover: {after: 3s, avoid: 90s}
location: 'sqlite:///FOLDER/here.db'
freeswitch:
  fs7:
    {host: 127.0.0.7, port: 8027, user: 7@fs.example, password: '77', timeout: 7s, silence: 17s, lost_after: 37s,
     probe: 8s, sip: 'sip:127.0.0.7:5087'}
gateways: {telco: {uri: 'sip:192.0.2.9', probe: 0s}}
users: {staff: {http: 'https://users.example.net/'}}
flows: [FOLDER/mine]
registrar:
  {min_expires: 90s, too_brief: raise, on_full: replace, gruu: off, flow_timer: 95s,
   ping: {phones: all, every: 96s, missed: 7}}
push:
  wake: 71s
  awake: 72s
  refresh: 73s
  per_phone: 74
  max_expires: 75s
  unserved: register
auth: {qop: auth-int, nonce: 61s, userhash: on, cache: 62s, absent: 63s, stale: 64s, users: 65}
scanners: {agents: [badphone], addresses: [bad@]}
socket: {listen: '127.0.0.1:0'}
cdr: FOLDER/cdr.jsonl
admin: {listen: '127.0.0.1:0', names: [calls.example.org], connections: 3, connections_per_client: 2,
  streams: 5, token: 0123456789abcdef, read_token: fedcba9876543210, token_file: FOLDER/token,
  history: {memory: 1000061, calls: 62, messages: off}, archive: {file: FOLDER/calls.db, days: 63}}
http: {allow: [192.0.2.128/25]}
limits:
  {transactions: 11, lingering: 12, transaction_memory: 1000013, bindings: 14, location_writes: 15,
   bindings_per_source: 16, contacts_per_aor: 17, runs: 18, runs_per_flow: 19, chain: 20, subscriptions: 21,
   trace_memory: 1000022, http_queue: 23, esl_queue: 24, message: 1325, call_duration: 26s,
   addresses_per_user: 27}
contacts: {allow: private}
sources: {rate: 31, burst: 32, pending: 33, strangers: 34, ban: 35s, failures: 36, failures_ban: 37s}
sinks: {out: {type: file, path: FOLDER/out.jsonl, events: cdr, spool: {file: FOLDER/out.db}}}
node: n7
log: {level: debug}
"""


def fs7(server: Server) -> Any:
    return server.links.by_name["fs7"]


def backlog(server: Server, name: str) -> int:
    server.jobs._esl_pool("fs7", 1)  # made when the first command comes
    return next(pool.backlog for pool in server.jobs.pools if pool.name == name)


def sink(server: Server) -> Any:
    service: Any = server.services.hosts["sinks"].running
    return service.sinks["out"]


def browsers(server: Server) -> WebSocketRules:
    transport = server.listening.transports[2]
    assert isinstance(transport, StreamTransport)
    framing = transport._layers.framing(False)
    assert isinstance(framing, WebSocketServer)
    return framing._rules


def tls(server: Server) -> Any:
    """The files and what is asked of others, as the transports have them."""
    assert server.listening._certificates is not None
    return server.listening._certificates._settings


ARRIVES: dict[str, tuple[Callable[[Server], Any], Any]] = {
    "sip.listen": (lambda s: len(s.listening.transports), 4),
    "sip.advertise": (lambda s: s.engine.network.points[1].sent_by, b"sip.example.net:5070"),
    "sip.domains": (lambda s: s.engine.network.is_domain(b"example.net"), True),
    "sip.trust": (
        lambda s: (s.engine.network.trusts("192.0.2.1"), s.engine.network.trusts("127.0.0.1")),
        (True, False),
    ),
    "sip.websocket.path": (lambda s: browsers(s).path, "/ws"),
    "sip.websocket.ping": (lambda s: browsers(s).ping, 40.0),
    "sip.websocket.origins": (lambda s: browsers(s).origins, {"https://phone.example.org"}),
    "sip.nat": (lambda s: s.engine.settings.nat, False),
    "sip.digest": (lambda s: s.engine.settings.digest, ("SHA-256", "MD5")),
    "sip.events": (lambda s: s.engine.settings.events, {"presence": "fs7"}),
    "sip.timers": (lambda s: s.engine.settings.times, TimerValues(t1=0.6, t2=5.0, t4=6.0, c=240.0)),
    "sip.dialog_ping": (lambda s: s.engine.settings.limits.dialog_ping, 420.0),
    "sip.session_expires": (lambda s: s.engine.settings.session_expires, 1860),
    "sip.dialog_missed": (lambda s: s.engine.settings.limits.dialog_missed, 5),
    "sip.assert_identity": (lambda s: s.engine.settings.assert_identity, True),
    "sip.topology_hiding": (lambda s: s.engine.settings.topology_hiding, True),
    "sip.tls.certificate": (lambda s: tls(s).certificate.name, "certificate.pem"),
    "sip.tls.key": (lambda s: tls(s).key.name, "key.pem"),
    "sip.tls.ca": (lambda s: tls(s).ca.name, "ca.pem"),
    "sip.tls.verify": (lambda s: s.listening._certificates._server.verify_mode, ssl.CERT_REQUIRED),  # type: ignore[union-attr]
    "sip.tls.verify_server": (lambda s: s.listening._certificates._client.verify_mode, ssl.CERT_NONE),  # type: ignore[union-attr]
    "sip.tls.versions": (lambda s: tls(s).versions, ("1.3",)),
    "sip.streams.connections": (lambda s: s.listening.connections.limits.connections, 41),
    "sip.streams.connections_per_source": (lambda s: s.listening.connections.limits.connections_per_source, 42),
    "sip.streams.connect": (lambda s: s.listening.connections.limits.connect, 43.0),
    "sip.streams.handshake": (lambda s: s.listening.connections.limits.handshake, 44.0),
    "sip.streams.message": (lambda s: s.listening.connections.limits.message, 45.0),
    "sip.streams.idle": (lambda s: s.listening.connections.limits.idle, 46.0),
    "sip.streams.write": (lambda s: s.listening.connections.limits.write, 47.0),
    "sip.streams.buffered": (lambda s: s.listening.connections.limits.buffered, 1_000_049),
    "sip.streams.write_queue": (lambda s: s.listening.connections.limits.write_queue, 1_000_048),
    "sip.dns.servers": (lambda s: s.jobs.resolver._servers, (("192.0.2.53", 53), ("192.0.2.54", 5353))),
    "sip.dns.timeout": (lambda s: s.jobs.resolver.timeout, 3.0),
    "sip.failover.after": (lambda s: s.engine.settings.failover_after, 3.0),
    "sip.failover.avoid": (lambda s: s.engine.settings.avoid, 90.0),
    "location": (lambda s: Path(s.engine.location.store.path).name, "here.db"),  # type: ignore[attr-defined]
    "freeswitch.host": (lambda s: fs7(s).server.host, "127.0.0.7"),
    "freeswitch.port": (lambda s: fs7(s).server.port, 8027),
    "freeswitch.user": (lambda s: fs7(s).server.user, "7@fs.example"),
    "freeswitch.password": (lambda s: fs7(s).server.password, "77"),
    "freeswitch.timeout": (
        lambda s: (fs7(s)._command_timeout, fs7(s)._connect_timeout),
        (7.0, 7.0),
    ),
    "freeswitch.silence": (lambda s: fs7(s)._idle, 17.0),
    "freeswitch.lost_after": (lambda s: s.engine.site.server_times["fs7"].lost_after, 37.0),
    "freeswitch.probe": (lambda s: s.engine.site.server_times["fs7"].probe, 8.0),
    "freeswitch.sip": (lambda s: s.engine.site.freeswitch["fs7"], "sip:127.0.0.7:5087"),
    "gateways": (lambda s: s.engine.flows.program.resources.gateways["telco"]["probe"], 0.0),
    "users": (lambda s: set(s.engine.site.users), {"staff"}),
    "flows": (lambda s: [flow.name for flow in s.engine.flows.program.flows], ["mine"]),
    "registrar.min_expires": (lambda s: s.engine.settings.register.min_expires, 90),
    "registrar.too_brief": (lambda s: s.engine.settings.register.raise_short, True),
    "registrar.on_full": (lambda s: s.engine.settings.register.replace, True),
    "push.wake": (lambda s: s.engine.settings.push.wake, 71.0),
    "push.awake": (lambda s: s.engine.settings.push.awake, 72.0),
    "push.refresh": (lambda s: s.engine.settings.push.refresh, 73.0),
    "push.per_phone": (lambda s: s.engine.settings.push.per_phone, 74),
    "push.max_expires": (lambda s: s.engine.settings.push.max_expires, 75),
    "push.unserved": (lambda s: s.engine.settings.push.unserved, "register"),
    "registrar.gruu": (lambda s: s.engine.settings.gruu, False),
    "registrar.flow_timer": (lambda s: s.engine.settings.register.flow_timer, 95),
    "registrar.ping.phones": (lambda s: s.engine.settings.ping.phones, "all"),
    "registrar.ping.every": (lambda s: s.engine.settings.ping.every, 96.0),
    "registrar.ping.missed": (lambda s: s.engine.settings.ping.missed, 7),
    "auth.qop": (lambda s: s.engine.settings.auth.qop, ("auth-int",)),
    "auth.nonce": (lambda s: s.engine.settings.auth.nonce, 61.0),
    "auth.userhash": (lambda s: s.engine.settings.auth.userhash, True),
    "auth.cache": (lambda s: s.engine.settings.auth.cache.keep, 62.0),
    "auth.absent": (lambda s: s.engine.settings.auth.cache.absent, 63.0),
    "auth.stale": (lambda s: s.engine.settings.auth.cache.stale, 64.0),
    "auth.users": (lambda s: s.engine.settings.auth.cache.users, 65),
    "scanners.agents": (lambda s: s.engine.settings.scanners[0], ("badphone",)),
    "scanners.addresses": (lambda s: s.engine.settings.scanners[1], ("bad@",)),
    "socket.listen": (lambda s: "socket:127.0.0.1:" in s.addresses, True),
    "cdr": (lambda s: s.cdr is not None and s.cdr.path.name, "cdr.jsonl"),
    "admin.listen": (lambda s: s.admin.address[1] not in (0, 8080), True),
    "admin.connections": (lambda s: s.admin._server.turns._all.counter, 3),
    "admin.connections_per_client": (lambda s: s.admin._server.turns._most_of_one, 2),
    "admin.streams": (lambda s: s.admin._server.streams._most, 5),
    "admin.token": (lambda s: s.access.scope_of_token("0123456789abcdef", "192.0.2.1"), "full"),
    "admin.read_token": (lambda s: s.access.scope_of_token("fedcba9876543210", "192.0.2.1"), "read"),
    "admin.history.memory": (lambda s: s.histories.bounds.memory, 1_000_061),
    "admin.history.calls": (lambda s: s.histories.bounds.calls, 62),
    "admin.history.messages": (lambda s: s.histories.bounds.messages, False),
    "admin.archive": (lambda s: (s.archive._file.path.name, s.archive._days), ("calls.db", 63.0)),
    "http.allow": (lambda s: s.jobs.http._guard.allow, (ip_network("192.0.2.128/25"),)),
    "limits.transactions": (lambda s: s.engine.settings.limits.transactions, 11),
    "limits.lingering": (lambda s: s.engine.settings.limits.lingering, 12),
    "limits.transaction_memory": (lambda s: s.engine.settings.limits.octets, 1_000_013),
    "limits.bindings": (lambda s: s.engine.location.max_bindings, 14),
    "limits.location_writes": (lambda s: (s.engine.settings.limits.location_writes, backlog(s, "location")), (15, 15)),
    "limits.bindings_per_source": (lambda s: s.engine.location.max_from_source, 16),
    "limits.contacts_per_aor": (lambda s: s.engine.location.max_contacts, 17),
    "limits.runs": (lambda s: s.engine.flows.most_runs, 18),
    "limits.runs_per_flow": (lambda s: s.engine.flows.most_runs_per_flow, 19),
    "limits.chain": (lambda s: s.engine.flows.chain, 20),
    "limits.subscriptions": (lambda s: s.engine.flows.capacity, 21),
    "limits.trace_memory": (lambda s: s.engine.flows.trace_memory.most, 1_000_022),
    "limits.http_queue": (lambda s: backlog(s, "http"), 23),
    "limits.esl_queue": (lambda s: backlog(s, "esl fs7"), 24),
    "limits.addresses_per_user": (lambda s: s.engine.settings.limits.addresses_per_user, 27),
    "limits.message": (lambda s: s.engine.settings.limits.message, 1325),
    "limits.call_duration": (lambda s: s.engine.settings.limits.call_duration, 26.0),
    "contacts.allow": (lambda s: s.engine.settings.contacts, "private"),
    "sinks": (lambda s: sink(s).name, "out"),
    "node": (lambda s: sink(s).node, "n7"),
    "sources.rate": (lambda s: s.engine.admission.limits.rate, 31),
    "sources.burst": (lambda s: s.engine.admission.limits.burst, 32),
    "sources.pending": (lambda s: s.engine.admission.limits.pending, 33),
    "sources.strangers": (lambda s: s.engine.admission.limits.strangers, 34),
    "sources.ban": (lambda s: s.engine.admission.limits.ban, 35.0),
    "sources.failures": (lambda s: s.engine.admission.limits.failures, 36),
    "sources.failures_ban": (lambda s: s.engine.admission.limits.failures_ban, 37.0),
}

ELSEWHERE = {
    "admin.names": "tests/cli/test_served.py",
    "admin.token_file": "tests/api/test_token_file.py",
    "log.level": "tests/runtime/test_log.py",
    "log.format": "tests/runtime/test_log.py",
    "push.services": "tests/settings/test_push_configured.py",
    "registrar.without_flow": "tests/settings/test_guards.py",
    "sip.open_relay": "tests/settings/test_guards.py",
    "sip.transports": "tests/runtime/test_transports.py",
    "services": "tests/runtime/test_services.py",
    "stop.ringing": "tests/runtime/test_app.py",
    "stop.setup": "tests/runtime/test_app.py",
}
"""Keys that show only while the server runs, and the tests that see it."""


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and name != "timers":
            yield from leaves(kind, f"{path}{name}.")
        else:
            yield path + name


def test_every_key_has_its_test() -> None:
    keys = set(leaves(Settings)) - {"freeswitch"} | {f"freeswitch.{key}" for key in FreeSwitchSettings.model_fields}
    assert keys == ARRIVES.keys() | ELSEWHERE.keys()
    for file in ELSEWHERE.values():
        assert (Path(__file__).parents[2] / file).exists()


def test_no_value_here_is_the_default(tmp_path: Path) -> None:
    """Else a key that arrives nowhere would look as if it did."""
    write_pair(tmp_path, "example.net")
    write_authority(tmp_path / "ca.pem")
    settings, default = read_settings("o.yml", CONFIG.replace("FOLDER", str(tmp_path)), {}), Settings()
    for key in ARRIVES:
        mine: Any = settings if not key.startswith("freeswitch.") else settings.freeswitch["fs7"]
        usual: Any = default if not key.startswith("freeswitch.") else FreeSwitchSettings()
        for part in key.removeprefix("freeswitch.").split("."):
            mine, usual = getattr(mine, part), getattr(usual, part)
        assert mine != usual, key


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "mine").mkdir()
    (folder / "mine" / "a.flow.yaml").write_text(FLOW)
    write_pair(folder, "example.net")
    write_authority(folder / "ca.pem")
    settings = read_settings("o.yml", CONFIG.replace("FOLDER", str(folder)), {})
    with ExitStack() as stack:
        yield Server(read_site(settings, {}), stack)


@pytest.mark.parametrize("key", ARRIVES)
def test_a_key_arrives(server: Server, key: str) -> None:
    read, expected = ARRIVES[key]
    assert read(server) == expected
