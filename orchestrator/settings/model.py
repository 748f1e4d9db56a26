"""The configuration as one typed, frozen model: each key with its default, unknown keys refused.

`config/orchestrator.yml` says the same with a reason for each key; a test holds one against the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    SerializeAsAny,
)

from orchestrator.core.probes import EVERY
from orchestrator.core.settings import ESL_QUEUE, HTTP_QUEUE, LOCATION_WRITES
from orchestrator.errors import Diagnostic
from orchestrator.flow.language.program import Place
from orchestrator.flow.run.trace import MEMORY
from orchestrator.packages.location_store import ChosenStore
from orchestrator.packages.sink import ChosenSink
from orchestrator.packages.user_source import ChosenUsers
from orchestrator.settings.push_sections import PushSettings
from orchestrator.settings.sip_sections import (
    DnsSettings,
    FailoverSettings,
    Section,
    StreamSettings,
    TimerSettings,
    TlsSettings,
    WebSocketSettings,
)
from orchestrator.settings.values import (
    Address,
    Count,
    Duration,
    Interval,
    InvalidValue,
    Listen,
    Network,
    Port,
    on_or_off,
    one_by_one,
    parse_admin_address,
    parse_advertised,
    parse_chosen,
    parse_column,
    parse_database,
    parse_digest,
    parse_directory_user,
    parse_domain,
    parse_file,
    parse_gateway_uri,
    parse_host,
    parse_listen,
    parse_location,
    parse_node,
    parse_number_rule,
    parse_pause,
    parse_prefix,
    parse_session,
    parse_sink,
    parse_sip_uri,
    parse_socket_address,
    parse_sql_name,
    parse_web_address,
    parse_word,
    split_at_commas,
)
from orchestrator.sip.digest import DEFAULT_ALGORITHMS, LIFETIME
from orchestrator.sip.scanners import DEFAULT_ADDRESSES, DEFAULT_AGENTS

FACTORY_PASSWORD = "ClueCon"  # noqa: S105 - known to everybody, which is why it is refused
"""The Event Socket password of a FreeSWITCH nobody has configured. It gives a shell to whoever reaches the port."""


class SipSettings(Section):
    listen: Annotated[
        tuple[Annotated[Listen, PlainValidator(parse_listen)], ...],
        BeforeValidator(split_at_commas),
        Field(min_length=1),
    ] = (Listen("udp", Address("0.0.0.0", 5060)), Listen("tcp", Address("0.0.0.0", 5060)))  # noqa: S104
    advertise: Annotated[Address | None, PlainValidator(parse_advertised)] = None
    domains: Annotated[tuple[Annotated[str, PlainValidator(parse_domain)], ...], BeforeValidator(one_by_one)] = (
        "example.com",
    )
    trust: Annotated[tuple[Network, ...], BeforeValidator(one_by_one)] = (
        ip_network("127.0.0.0/8"),
        ip_network("::1/128"),
    )
    open_relay: Annotated[Literal["on", "off"], BeforeValidator(on_or_off)] = "off"
    """Whether `trust` may hold everybody."""
    topology_hiding: Annotated[Literal["on", "off"], BeforeValidator(on_or_off)] = "off"
    assert_identity: Annotated[Literal["on", "off"], BeforeValidator(on_or_off)] = "off"
    websocket: WebSocketSettings = WebSocketSettings()
    nat: Annotated[Literal["auto", "off"], BeforeValidator(lambda value: "off" if value is False else value)] = "auto"
    digest: Annotated[
        tuple[Annotated[str, PlainValidator(parse_digest)], ...], BeforeValidator(one_by_one), Field(min_length=1)
    ] = DEFAULT_ALGORITHMS
    events: Mapping[str, str] = Field(default_factory=dict)
    timers: TimerSettings = TimerSettings()
    dialog_ping: Annotated[float | None, PlainValidator(parse_pause)] = 300.0
    dialog_missed: Annotated[int, Field(ge=1, le=1_000)] | None = 3
    session_expires: Annotated[float | None, PlainValidator(parse_session)] = None
    tls: TlsSettings = TlsSettings()
    streams: StreamSettings = StreamSettings()
    transports: Mapping[str, SerializeAsAny[BaseModel]] = Field(default_factory=dict)
    """Settings of transports of packages, by name: instances of the settings model of each."""
    dns: DnsSettings = DnsSettings()
    failover: FailoverSettings = FailoverSettings()

    @property
    def transports_listened(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys(listen.transport for listen in self.listen))


class FreeSwitchSettings(Section):
    """One FreeSWITCH server: its Event Socket, and where it takes calls."""

    host: Annotated[str, PlainValidator(parse_host)] = "127.0.0.1"
    port: Port = 8021
    user: Annotated[str | None, PlainValidator(parse_directory_user)] = None
    password: Annotated[SecretStr, Field(min_length=1)] = SecretStr(FACTORY_PASSWORD)
    timeout: Duration = 5.0
    silence: Duration = 10.0
    lost_after: Duration = 30.0
    probe: Interval = 5.0
    sip: Annotated[str | None, PlainValidator(parse_sip_uri)] = None

    @property
    def sip_uri(self) -> str:
        """Where calls for this server go: `sip`, else port 5080 of its host, FreeSWITCH's own for trunks."""
        return self.sip or f"sip:{Address(self.host, 5080)}"


def present(servers: object) -> object:
    """The servers without those whose host is null: a file for all places can leave one out where there is none."""
    if not isinstance(servers, Mapping):
        return servers
    return {name: server for name, server in servers.items() if not _is_absent(server)}


def _is_absent(server: object) -> bool:
    return isinstance(server, Mapping) and "host" in server and server["host"] is None


def guarded(server: FreeSwitchSettings) -> FreeSwitchSettings:
    """The server itself. Raises InvalidValue when everybody on its network knows its password."""
    if server.password.get_secret_value() == FACTORY_PASSWORD and not _is_loopback(server.host):
        raise InvalidValue(
            f"the factory password is refused for {server.host}, which is not this machine",
            "set a password of your own in FreeSWITCH's event_socket.conf.xml and here",
        )
    return server


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class GatewaySettings(Section):
    """Where calls to other networks go."""

    uri: Annotated[str, PlainValidator(parse_gateway_uri)]
    user: str | None = None
    password: SecretStr | None = None
    realm: str | None = None
    strip: Annotated[int, Field(ge=0, le=64)] = 0
    """Characters removed from the front of the dialled number."""
    prefix: Annotated[str, PlainValidator(parse_prefix)] = ""
    """What is put in front of it then."""
    number: Annotated[Any, PlainValidator(parse_number_rule)] = None
    """An Expression over the dialled `number`, in place of both."""
    probe: Interval = EVERY
    """Seconds between two OPTIONS; 0 for none."""
    identity: Literal["trusted", "untrusted"] | None = None
    """Whether it is believed who calls; None: as `sip: trust:` says."""
    topology_hiding: Annotated[Literal["on", "off"], BeforeValidator(on_or_off)] = "off"

    def values(self) -> dict[str, Any]:
        """What is given, as a flow file would say it."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        if self.password is not None:
            given["password"] = self.password.get_secret_value()
        return {name: value for name, value in given.items() if name == "probe" or value not in (None, "", 0, "off")}


def _one_rule(gateway: GatewaySettings) -> GatewaySettings:
    if gateway.number is not None and (gateway.strip or gateway.prefix):
        raise InvalidValue("number: takes the place of strip: and prefix:", "do all of it in the expression of number:")
    return gateway


_OF_SQL = ("password", "table", "columns", "query", "timeout", "connections")


def _one_source(table: UserSettings) -> UserSettings:
    if sum(value is not None for value in (table.file, table.http, table.sql, table.source)) != 1:
        raise InvalidValue("a user table needs one of file, http, sql, source", "write {file: config/users.yaml}")
    given = [name for name in _OF_SQL if name in table.model_fields_set]
    if table.sql is None and given:
        raise InvalidValue(f"{given[0]}: is for a database", "remove it, or name the database with sql:")
    if table.query is not None and {"table", "columns"}.intersection(given):
        raise InvalidValue("query: takes the place of table: and columns:", "write one or the other")
    return table


class SqlColumns(Section):
    """Columns of a table of users; null for none. The defaults are in the tables of Kamailio and OpenSIPS alike."""

    user: Annotated[str, PlainValidator(parse_sql_name)] = "username"
    realm: Annotated[str | None, PlainValidator(parse_column)] = "domain"
    password: Annotated[str | None, PlainValidator(parse_column)] = None
    ha1: Annotated[str | None, PlainValidator(parse_column)] = "ha1"
    ha1_sha256: Annotated[str | None, PlainValidator(parse_column)] = None
    ha1_sha512_256: Annotated[str | None, PlainValidator(parse_column)] = None


class UserSettings(Section):
    """Where the users of `auth:` stand: a file, a web service, a database, or the source of a package."""

    file: str | None = None
    http: Annotated[str | None, PlainValidator(parse_web_address)] = None
    source: Annotated[ChosenUsers | None, PlainValidator(parse_chosen)] = None
    """Written by its name, with its own settings beside."""
    sql: Annotated[str | None, PlainValidator(parse_database)] = None
    """URL of the database."""
    password: SecretStr | None = None
    """The database's."""
    table: Annotated[str, PlainValidator(parse_sql_name)] = "subscriber"
    columns: SqlColumns = SqlColumns()
    query: str | None = None
    """In place of both."""
    timeout: Duration = 3.0
    connections: Annotated[int, Field(ge=1, le=100)] = 4


class CallHistorySettings(Section):
    """What is kept of calls in memory; see `views.call_history`."""

    memory: Annotated[int, Field(ge=1_000_000, le=1_000_000_000_000)] = 50_000_000
    """Octets."""
    calls: Annotated[int, Field(ge=0, le=1_000_000)] = 1_000
    messages: Annotated[Literal["on", "off"], BeforeValidator(on_or_off)] = "on"


class ArchiveSettings(Section):
    """Where finished calls are kept, and for how many days; see `archive.call_archive`."""

    file: Annotated[Path, PlainValidator(parse_file)]
    days: Annotated[float, Field(gt=0, le=36_500)] = 30.0


class AdminSettings(Section):
    listen: Annotated[Address, PlainValidator(parse_admin_address)] = Address("127.0.0.1", 8080)
    names: Annotated[tuple[Annotated[str, PlainValidator(parse_domain)], ...], BeforeValidator(one_by_one)] = ()
    """Host names it is asked by, besides addresses and localhost."""
    connections: Count = 32
    connections_per_client: Count = 16
    streams: Count = 200
    token: Annotated[SecretStr, Field(min_length=16)] | None = None
    """What a request must bear that changes something."""
    read_token: Annotated[SecretStr, Field(min_length=16)] | None = None
    """What a request must bear, at least, that changes nothing."""
    token_file: Annotated[Path | None, PlainValidator(parse_file)] = Path("orchestrator.token")
    """Where a token is kept that the first start makes, where neither of the others is set."""
    history: CallHistorySettings = CallHistorySettings()
    archive: ArchiveSettings | None = None


class SocketSettings(Section):
    """Where FreeSWITCH's dialplan connects to (its application `socket`)."""

    listen: Annotated[Address | None, PlainValidator(parse_socket_address)] = None


class AuthSettings(Section):
    """How `auth:` asks for passwords, and how long it keeps what user tables say; see `core.user_cache`."""

    qop: Annotated[tuple[Literal["auth", "auth-int"], ...], BeforeValidator(one_by_one), Field(min_length=1)] = (
        "auth",
    )
    nonce: Duration = LIFETIME
    userhash: Annotated[Literal["on", "off"], BeforeValidator(on_or_off)] = "off"
    cache: Interval = 60.0
    absent: Interval = 10.0
    stale: Interval = 600.0
    users: Count = 20_000


class HttpSettings(Section):
    """What `http:` steps may connect to."""

    allow: Annotated[tuple[Network, ...], BeforeValidator(one_by_one)] = ()


class PingSettings(Section):
    """OPTIONS to registered phones; see `core.keepalive`."""

    phones: Literal["none", "nat", "all"] = "nat"
    every: Duration = 30.0
    missed: Annotated[int, Field(ge=1, le=1_000)] | None = 3


class RegistrarSettings(Section):
    """What a REGISTER may ask for, and what keeps the way to who is registered open."""

    min_expires: Duration = 60.0
    too_brief: Literal["refuse", "raise"] = "refuse"
    on_full: Literal["refuse", "replace"] = "refuse"
    gruu: Annotated[Literal["on", "off"], BeforeValidator(on_or_off)] = "on"
    without_flow: Literal["trusted", "anyone"] = "anyone"
    """Who may register when no flow takes the REGISTER."""
    flow_timer: Annotated[float | None, PlainValidator(parse_pause)] = 120.0
    ping: PingSettings = PingSettings()


class LimitSettings(Section):
    transactions: Count = 20_000
    lingering: Count = 300_000
    transaction_memory: Annotated[int, Field(ge=1_000_000, le=1_000_000_000_000)] = 600_000_000
    """Octets."""
    bindings: Count = 200_000
    location_writes: Count = LOCATION_WRITES
    bindings_per_source: Count = 10_000
    addresses_per_user: Count = 100
    contacts_per_aor: Count = 10
    runs: Count = 50_000
    runs_per_flow: Count = 20_000
    chain: Count = 16
    subscriptions: Count = 200_000
    trace_memory: Annotated[int, Field(ge=1_000_000, le=1_000_000_000_000)] = MEMORY
    """Octets."""
    http_queue: Count = HTTP_QUEUE
    esl_queue: Count = ESL_QUEUE
    message: Annotated[int, Field(ge=1_300, le=65_535)] = 65_535
    """Octets. Less than a single datagram of an ordinary network would leave phones without an answer."""
    call_duration: Duration = 12 * 3600.0


class StopSettings(Section):
    """How long a stop waits, in seconds; see `core.stopping`."""

    setup: Duration = 1.0
    ringing: Duration = 35.0


class ContactSettings(Section):
    """How far the contact of an untrusted phone is believed; see `sip.contact_guard`."""

    allow: Literal["source", "private", "any"] = "source"


class SourceSettings(Section):
    """The share of each source that is not trusted, in points; see `sip.admission`."""

    rate: Count = 200
    burst: Count = 1000
    pending: Count = 100
    strangers: Count = 2000
    ban: Duration = 60.0
    failures: Annotated[int, Field(ge=0, le=10_000_000)] = 30
    """0: nobody is banned for failed logins."""
    failures_ban: Duration = 600.0


class ScannerSettings(Section):
    """What scanners are told by; see `sip.scanners`. Two empty lists: nobody is one."""

    agents: Annotated[tuple[Annotated[str, PlainValidator(parse_word)], ...], BeforeValidator(one_by_one)] = (
        DEFAULT_AGENTS
    )
    addresses: Annotated[tuple[Annotated[str, PlainValidator(parse_word)], ...], BeforeValidator(one_by_one)] = (
        DEFAULT_ADDRESSES
    )


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(Section):
    """The whole configuration."""

    sip: SipSettings = SipSettings()
    location: Annotated[str | ChosenStore, PlainValidator(parse_location)] = "sqlite:///orchestrator.db"
    freeswitch: Annotated[
        Mapping[str, Annotated[FreeSwitchSettings, AfterValidator(guarded)]], BeforeValidator(present)
    ] = Field(default_factory=dict)
    gateways: Mapping[str, Annotated[GatewaySettings, AfterValidator(_one_rule)]] = Field(default_factory=dict)
    users: Mapping[str, Annotated[UserSettings, AfterValidator(_one_source)]] = Field(default_factory=dict)
    flows: Annotated[tuple[Path, ...], BeforeValidator(one_by_one)] = (Path("flows"),)
    registrar: RegistrarSettings = RegistrarSettings()
    push: PushSettings = PushSettings()
    socket: SocketSettings = SocketSettings()
    cdr: Annotated[Path | None, PlainValidator(parse_file)] = None
    admin: AdminSettings = AdminSettings()
    auth: AuthSettings = AuthSettings()
    http: HttpSettings = HttpSettings()
    limits: LimitSettings = LimitSettings()
    stop: StopSettings = StopSettings()
    contacts: ContactSettings = ContactSettings()
    sources: SourceSettings = SourceSettings()
    scanners: ScannerSettings = ScannerSettings()
    services: Mapping[str, SerializeAsAny[BaseModel]] = Field(default_factory=dict)
    """Services of packages that run, by name: instances of the settings model of each."""
    sinks: Mapping[str, Annotated[ChosenSink, PlainValidator(parse_sink)]] = Field(default_factory=dict)
    """Where events go, by a name of the site's own."""
    node: Annotated[str, PlainValidator(parse_node)] = ""
    """What this server is called where others hear of it; '' for the name of the host."""
    log: LogSettings = LogSettings()
    _warnings: tuple[Diagnostic, ...] = PrivateAttr(())
    _push_places: Mapping[str, Place] = PrivateAttr({})
    _service_places: Mapping[tuple[str | int, ...], Place] = PrivateAttr({})

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What is odd in the file, in order of place; it is used all the same."""
        return self._warnings

    @property
    def push_places(self) -> Mapping[str, Place]:
        """Where each entry of `push: services:` stands, by name, and the values in it, by `name.key`; none where they
        were read from no file."""
        return self._push_places

    @property
    def service_places(self) -> Mapping[tuple[str | int, ...], Place]:
        """The same for `services:`, by the path below it."""
        return self._service_places

    def with_file(
        self,
        warnings: Iterable[Diagnostic],
        push_places: Mapping[str, Place],
        service_places: Mapping[tuple[str | int, ...], Place],
    ) -> Settings:
        """The same settings, with what is to be known of the file they were read from."""
        copy = self.model_copy()
        copy._warnings, copy._push_places, copy._service_places = tuple(warnings), push_places, service_places
        return copy
