"""Questions to name servers, and their answers as `sip.locate` wants them (RFC 1035, 2308, 2782, 3403).

dnspython writes and reads the messages; the sockets are gevent's, so a look-up waits in a greenlet of its own and holds
up nobody. All questions of a batch are asked at once. A name server that says nothing is asked again after a second,
the next one in turn; the whole look-up has its time, and what has not been answered by then is not known.

Names of the hosts file come before all others, and nothing else is asked about them. A name without a dot is one of the
site: the search list is gone through for it, and no SRV records are looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import gevent
from gevent import socket

from orchestrator.sip.locate import Answer, Found, Goal, Naptr, Question, Srv, survey

TIMEOUT: Final = 4.0
"""Seconds for one look-up. The caller of a call to a name is waiting; 64*T1 would be a long silence."""
TRY: Final = 1.0
"""Seconds until a question is asked again, of the next server."""
GRACE: Final = 1.5
"""Seconds that NAPTR and SRV records are waited for when the addresses are there: some servers are silent about what
they do not know."""
MOST_ALIASES: Final = 8
"""CNAME records that are followed from one message to the next."""
FILE_LASTS: Final = 60.0
"""Seconds that an answer of the hosts file holds."""
REREAD: Final = 5.0
"""Seconds between two looks at whether the files have changed."""
_PORT = 53
_LONGEST = 65_535

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What /etc/resolv.conf says."""

    servers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1


class Watched:
    """A file as read: again when it has changed."""

    def __init__(self, path: Path, read: Callable[[str], Any], missing: Any) -> None:
        self._path = path
        self._read = read
        self._value = missing
        self._missing = missing
        self._looked = -REREAD
        self._stamp: object = None

    def value(self) -> Any:
        """What it says now, as of the last few seconds."""
        now = monotonic()
        if now - self._looked >= REREAD:
            self._looked = now
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                if stamp != self._stamp:
                    self._value = self._read(self._path.read_text(errors="replace"))
                    self._stamp = stamp
            except OSError:
                self._value, self._stamp = self._missing, None
        return self._value


class Resolver:
    """Asks `servers`, those of `resolv_conf` where none are given; a look-up takes `timeout` seconds at most."""

    def __init__(
        self,
        servers: Sequence[Address] = (),
        timeout: float = TIMEOUT,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        hosts: Path = Path("/etc/hosts"),
    ) -> None:
        self.timeout = timeout
        self._servers = tuple(servers)
        self._conf = Watched(resolv_conf, read_resolv_conf, ResolvConf())
        self._hosts = Watched(hosts, read_hosts, {})

    def find(self, goal: Goal) -> Found:
        """What there is of a name; nothing where no server answers in time."""
        here = self._of_hosts(goal)
        if here is not None:
            return here
        deadline = monotonic() + self.timeout
        steps = survey(goal)
        try:
            questions = next(steps)
            while True:
                questions = steps.send(self._ask_all(questions, deadline))
        except StopIteration as end:
            found: Found = end.value
            return found

    def _of_hosts(self, goal: Goal) -> Found | None:
        """The addresses of a name that the hosts file has, and localhost (RFC 6761 §6.3)."""
        known: Mapping[str, tuple[str, ...]] = self._hosts.value()
        addresses = known.get(goal.name, ())
        if not addresses and (goal.name == "localhost" or goal.name.endswith(".localhost")):
            addresses = ("127.0.0.1", "::1")
        if not addresses:
            return None
        usable = tuple(address for address in addresses if ("AAAA" if ":" in address else "A") in goal.kinds)
        return Found((), {goal.name: usable}, FILE_LASTS)

    def _ask_all(self, questions: Sequence[Question], deadline: float) -> dict[Question, Answer | None]:
        """All answers that come in time."""
        asked = {question: gevent.spawn(self._ask, question, deadline) for question in questions}
        first = [asked[question] for question in questions if question.kind in ("A", "AAAA")]
        try:
            gevent.joinall(first, timeout=max(0.0, deadline - monotonic()))
            rest = [greenlet for greenlet in asked.values() if not greenlet.ready()]
            grace = GRACE if any(greenlet.value is not None for greenlet in first) else self.timeout
            gevent.joinall(rest, timeout=max(0.0, min(grace, deadline - monotonic())))
            return {question: greenlet.value for question, greenlet in asked.items()}
        finally:
            gevent.killall([greenlet for greenlet in asked.values() if not greenlet.ready()], block=False)

    def _ask(self, question: Question, deadline: float) -> Answer | None:
        """The answer to one question, None when nobody has given one."""
        answer: Answer | None = None
        for name in self._spelt(question):
            found = self._follow(name, question.kind, deadline)
            if found is None:
                return None
            if found.records:
                return found
            answer = found if answer is None else Answer((), min(found.ttl, answer.ttl))
        return answer

    def _spelt(self, question: Question) -> Iterator[str]:
        """Full names that a name may stand for: those of its search list, where it is short."""
        conf: ResolvConf = self._conf.value()
        short = question.kind in ("A", "AAAA") and question.name.count(".") < conf.ndots
        if short:
            yield from (f"{question.name}.{domain}" for domain in conf.search)
        yield question.name

    def _follow(self, name: str, kind: str, deadline: float) -> Answer | None:
        """Through aliases, also where a server gives no more than the next one."""
        ttl = float(_LONGEST)
        for _ in range(MOST_ALIASES):
            try:
                wanted = dns.name.from_text(name)
                said = self._exchange(wanted, kind, deadline)
                if said is None:
                    return None
                chain = said.resolve_chaining()
            except (dns.exception.DNSException, UnicodeError, ValueError):
                return None
            ttl = min(ttl, float(chain.minimum_ttl))
            if chain.answer is not None:
                return Answer(tuple(_record(data) for data in chain.answer), ttl)
            if chain.canonical_name == wanted:
                return Answer((), ttl)
            name = chain.canonical_name.to_text()
        return None

    def _exchange(self, name: dns.name.Name, kind: str, deadline: float) -> dns.message.QueryMessage | None:
        """One question to the servers in turn, each a few times."""
        servers = self._servers or self._conf.value().servers
        query = dns.message.make_query(name, kind)
        refused: set[Address] = set()
        while servers and monotonic() < deadline and len(refused) < len(servers):
            for server in servers:
                left = min(TRY, deadline - monotonic())
                if left <= 0 or server in refused:
                    continue
                try:
                    said = _over_udp(query, server, left)
                    if said is not None and said.flags & dns.flags.TC:
                        said = _over_tcp(query, server, max(TRY, deadline - monotonic()))
                except (OSError, dns.exception.DNSException):
                    refused.add(server)
                    continue
                if said is None:
                    continue
                if said.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return said
                refused.add(server)  # SERVFAIL and the like: it has answered, and will not say more
        return None


# --- the wire -------------------------------------------------------------------------------------------------------


def _over_udp(query: dns.message.QueryMessage, server: Address, seconds: float) -> dns.message.QueryMessage | None:
    """The answer of a server in time, None where there is none. What is no answer to this question is passed over: it
    may be forged. Raises OSError where nobody listens."""
    end = monotonic() + seconds
    with socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(server)  # from a port that nobody can guess, and nobody else's datagrams
        sock.send(query.to_wire())
        while (left := end - monotonic()) > 0:
            sock.settimeout(left)
            try:
                said = _read(query, sock.recv(_LONGEST))
            except TimeoutError:
                return None
            if said is not None:
                return said
    return None


def _over_tcp(query: dns.message.QueryMessage, server: Address, seconds: float) -> dns.message.QueryMessage | None:
    """The same for an answer that is too long for a datagram. Raises OSError."""
    octets, limit = query.to_wire(), gevent.Timeout(seconds, TimeoutError("the name server is too slow"))
    with limit, socket.create_connection(server, seconds) as sock:
        sock.sendall(len(octets).to_bytes(2, "big") + octets)
        size = int.from_bytes(_receive(sock, 2), "big")
        return _read(query, _receive(sock, size))


def _receive(sock: Any, size: int) -> bytes:
    octets = b""
    while len(octets) < size:
        part = sock.recv(size - len(octets))
        if not part:
            raise ConnectionResetError("the name server has hung up")
        octets += part
    return octets


def _read(query: dns.message.QueryMessage, octets: bytes) -> dns.message.QueryMessage | None:
    """The answer to this question, None for anything else."""
    try:
        said = dns.message.from_wire(octets, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None
    return said if isinstance(said, dns.message.QueryMessage) and query.is_response(said) else None


def _record(data: Any) -> Any:
    """A record as `sip.locate` has it."""
    kind = data.rdtype
    if kind == dns.rdatatype.SRV:
        return Srv(data.priority, data.weight, data.port, _name(data.target))
    if kind == dns.rdatatype.NAPTR:
        flags, service = data.flags.decode("ascii", "replace"), data.service.decode("ascii", "replace")
        return Naptr(data.order, data.preference, flags, service, _name(data.replacement))
    return data.address


def _name(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if len(name.labels) > 1 else ""


# --- files ----------------------------------------------------------------------------------------------------------


def read_resolv_conf(text: str) -> ResolvConf:
    """Name servers, search list and `ndots` (resolv.conf(5)); what is not understood is passed over."""
    servers: list[Address] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        word, *values = line.split("#", 1)[0].split(";", 1)[0].split() or [""]
        if word == "nameserver" and values:
            servers.append((values[0], _PORT))
        elif word in ("search", "domain") and values:
            search = tuple(value.strip(".").lower() for value in values if value.strip("."))
        elif word == "options":
            found = (value.removeprefix("ndots:") for value in values if value.startswith("ndots:"))
            ndots = next((int(value) for value in found if value.isdigit()), ndots)
    return ResolvConf(tuple(servers), search, ndots)


def read_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Name in lower case → its addresses (hosts(5))."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *names = line.split("#", 1)[0].split() or [""]
        for name in (name.lower().rstrip(".") for name in names):
            if address not in found.get(name, ()):
                found[name] = (*found.get(name, ()), address)
    return found
