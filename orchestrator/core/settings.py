"""What the core has to know of its surroundings; made by the application from the configuration, or by a test.

`CoreSettings` hold until the process ends, a `Site` until the next reload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

from orchestrator.core.users import UserTable
from orchestrator.flow.run.trace import MEMORY
from orchestrator.sip.admission import SourceLimits
from orchestrator.sip.contact_guard import Allow
from orchestrator.sip.digest import LIFETIME
from orchestrator.sip.grammar import MAX_MESSAGE
from orchestrator.sip.points import ListenPoint
from orchestrator.sip.push import PushPolicy
from orchestrator.sip.registrar import RegisterPolicy
from orchestrator.sip.scanners import DEFAULT_ADDRESSES, DEFAULT_AGENTS
from orchestrator.sip.transaction import TimerValues

HTTP_QUEUE, ESL_QUEUE = 1_000, 1_000
"""Web requests, and commands to each FreeSWITCH server, that may wait for those before them."""
LOCATION_WRITES = 1_000
LOCATION_TIMEOUT = 5.0
"""Registrations that may wait for the location store, and the seconds it may take for one."""


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """Bounds of the SIP side; at a bound a new request is answered 503 without a transaction (reliability: what is in
    progress passes)."""

    transactions: int = 20_000
    """Server transactions without a final response."""
    lingering: int = 300_000
    """All other transactions: answered ones that wait for repetitions, and ours. New requests are refused beyond;
    beyond a quarter more, those inside dialogs too."""
    octets: int = 600_000_000
    """Size of the messages behind all these transactions: few large ones take as much memory as many small ones."""
    message: int = MAX_MESSAGE
    """Octets of one message; a longer one is answered 513."""
    subscriptions: int = 200_000
    """Subscriptions of all flows together; a step that arms one more fails with `flow.limit`."""
    location_writes: int = LOCATION_WRITES
    """Registrations that may wait for a location store that answers later; one more is answered 503."""
    addresses_per_user: int = 100
    """Addresses of record that one user may register at a time, of those who have answered a challenge."""
    runs: int = 50_000
    """Runs of all flows together; a request that would begin one more is answered 503, an event is not taken."""
    runs_per_flow: int = 20_000
    trace_memory: int = MEMORY
    """Octets of the traces of all runs, finished ones included."""
    chain: int = 16
    """How often runs may start each other in a row; once more is a circle."""
    call_duration: float = 12 * 3600.0
    """Seconds after which an answered call whose BYE was never seen is ended by us."""
    dialog_ping: float = 300.0
    """Seconds between two OPTIONS to the phones of an answered call; 0 for none."""
    dialog_missed: int = 3
    """How many of them in a row one phone may leave without an answer; 0: as many as it likes."""


@dataclass(frozen=True, slots=True)
class UserCachePolicy:
    """How long the answers of user tables that are not files are kept, in seconds (`core.user_cache`)."""

    keep: float = 60.0
    absent: float = 10.0
    """That a user is not there."""
    stale: float = 600.0
    """Beyond `keep`, while the table cannot be asked."""
    users: int = 20_000
    """Users that are kept, and as many that are not there."""


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """How `auth` asks, beside the algorithms."""

    qop: tuple[str, ...] = ("auth",)
    nonce: float = LIFETIME
    """Seconds a nonce may be used."""
    userhash: bool = False
    """Names may be sent as hashes, where the table is a file."""
    cache: UserCachePolicy = field(default_factory=UserCachePolicy)


@dataclass(frozen=True, slots=True)
class PingPolicy:
    """Which contacts are sent OPTIONS (`core.keepalive`): `nat` those behind NAT and on connections, `all`, `none`; how
    often, in seconds; and after how many missing answers in a row a phone is gone (0: never)."""

    phones: Literal["none", "nat", "all"] = "none"
    every: float = 30.0
    missed: int = 3


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """How long a FreeSWITCH server is waited for, in seconds."""

    lost_after: float = 30.0
    """Calls it carries are over when it has been down for so long."""
    probe: float = 0.0
    """Between two OPTIONS to its SIP side; 0 for none."""


SERVER_TIMES = ServerTimes()


@dataclass(frozen=True, slots=True)
class Site:
    """What the files of a site give besides the program. A reload replaces it as a whole (`Engine.load`)."""

    freeswitch: Mapping[str, str] = field(default_factory=dict)
    """Server name → its SIP URI ('' when not known)."""
    server_times: Mapping[str, ServerTimes] = field(default_factory=dict)
    """Server name → its times, where they are not the default."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of the `secrets:` of the flows."""
    users: Mapping[str, UserTable] = field(default_factory=dict, repr=False)
    """User tables of `auth:` by name; one that could not be read is not in it."""


NO_SITE = Site()


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What does not change while the process runs."""

    points: tuple[ListenPoint, ...]
    domains: tuple[str, ...] = ()
    """What we register and route for besides our own addresses; the first one is what our addresses stand for."""
    trust: tuple[IPv4Network | IPv6Network, ...] = (ip_network("127.0.0.0/8"),)
    times: TimerValues = field(default_factory=TimerValues)
    nat: bool = True
    """A request with a private Via from a public address is answered where it came from, whether or not it asks for
    rport."""
    digest: tuple[str, ...] = ("MD5", "SHA-256")
    """Digest algorithms offered, in this order; the configuration's default is `sip.digest.DEFAULT_ALGORITHMS`."""
    auth: AuthPolicy = field(default_factory=AuthPolicy)
    register: RegisterPolicy = field(default_factory=RegisterPolicy)
    assert_identity: bool = False
    """Calls whose sender has answered a challenge get a P-Asserted-Identity towards those we believe (RFC 3325 §5)."""
    gruu: bool = True
    """Phones are given GRUUs (RFC 5627)."""
    topology_hiding: bool = False
    """Who stands on the one side of us does not see the hops of the other (`sip.topology`)."""
    ping: PingPolicy = field(default_factory=PingPolicy)
    push: PushPolicy = field(default_factory=PushPolicy)
    open_registrar: bool = True
    """A REGISTER that no flow takes is saved for everybody; False: for trusted sources only."""
    limits: CoreLimits = field(default_factory=CoreLimits)
    age: Callable[[], float] = lambda: 0.0
    """How long the oldest input had waited when it was taken up, in seconds, where that lasts: the reactor's measure of
    overload."""
    late: Callable[[], float] = lambda: 0.0
    """The same at this moment, lasting or not."""
    entropy: Callable[[int], bytes] = field(repr=False, default=bytes)
    """Random octets: os.urandom in production. The default gives zeros, good enough only for a single transaction."""
    events: Mapping[str, str] = field(default_factory=dict)
    """Event package of SUBSCRIBE and PUBLISH → FreeSWITCH server that serves it."""
    sources: SourceLimits | None = None
    """The share of each source that is not trusted; None: no bounds."""
    scanners: tuple[Sequence[str], Sequence[str]] = (DEFAULT_AGENTS, DEFAULT_ADDRESSES)
    """What untrusted scanners are told by (`sip.scanners`): words of a User-Agent, parts of From and To."""
    contacts: Allow | None = None
    """How far a contact of an untrusted phone is believed (`sip.contact_guard`); None: wholly."""
    location_timeout: float = LOCATION_TIMEOUT
    """Seconds that a location store may take for a write."""
    session_expires: int = 0
    """Seconds that sessions may go without a refresh (RFC 4028), at most; 0: nobody is asked for one."""
    failover_after: float = 4.0
    """Seconds that a server has for its first response while there are others to try."""
    avoid: float = 60.0
    """Seconds that a server is avoided which gave none."""
    source_of: Callable[[str], str] | None = None
    """The address of this machine that the system would send from to another, '' where it has no way there. None:
    nobody to ask, requests leave by the point they came in by."""
    wall_offset: float = 0.0
    """Wall clock minus the monotonic clock, read once at start: a clock that jumps neither expires phones nor keeps
    them."""
