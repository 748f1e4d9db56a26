"""Which servers a SIP URI means: from the records of its domain to candidates in order of preference (RFC 3263 §4).

Nothing is looked up here. `survey` says what to ask and is told the answers, a batch at a time; so it can be driven by
real name servers and by a test alike. Its result is kept for as long as the records say. `candidates` puts it in order
anew for each request: servers of equal priority share the load by their weights (RFC 2782).

    NAPTR records say by which transports a domain is reached, and where their SRV records are
    SRV records   name hosts and ports; without NAPTR those of all our transports are asked for
    A, AAAA       name addresses; without SRV those of the domain itself, at the port of the transport

All of the first batch is asked at once. RFC 3263 asks one after the other; a domain that has none of the records would
cost a caller as many round trips as there are kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

MOST_RECORDS: Final = 16
"""NAPTR and SRV records of one kind that are looked at, best first: a domain with more is a trap."""
MOST_CANDIDATES: Final = 8
"""Servers that one request is tried at."""
LONGEST: Final = 3600.0
"""Seconds; what a longer TTL is cut to."""
UNSURE_LASTS: Final = 30.0
"""Seconds that a result is kept for which not all questions were answered."""
MISSED_LASTS: Final = 10.0
"""Seconds a failure is kept (RFC 2308 §7.1 allows up to five minutes for a server that does not answer)."""

_SERVICES: Final = {
    "SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls", "SIP+D2S": "sctp", "SIP+D2W": "ws", "SIPS+D2W": "wss",
}  # fmt: skip
_PREFIXES: Final = {"udp": "_sip._udp.", "tcp": "_sip._tcp.", "tls": "_sips._tcp.", "sctp": "_sip._sctp."}


class Question(NamedTuple):
    """A name in lower case, without a dot at its end, and the kind of record: NAPTR, SRV, A, AAAA."""

    name: str
    kind: str


class Naptr(NamedTuple):
    """One NAPTR record; texts as they are, `replacement` a name as in `Question`."""

    order: int
    preference: int
    flags: str
    service: str
    replacement: str


class Srv(NamedTuple):
    """One SRV record; `target` is '' where it says that there is no such service."""

    priority: int
    weight: int
    port: int
    target: str


class Answer(NamedTuple):
    """What is known about a question: records (Naptr, Srv, addresses as text), none where there are none, and how many
    seconds that holds."""

    records: tuple[Any, ...]
    ttl: float


Answers = Mapping[Question, Answer | None]
"""None: no server has answered."""


class Goal(NamedTuple):
    """What a URI with a host name asks for. `addressed`: it names a port, so there is nothing to ask for but addresses;
    `transport` is '' where it says none; `secure` is `sips:`; `transports` are those we can open connections by, in the
    order that we like them in; `kinds` are A, AAAA or both, as we have sockets."""

    name: str
    addressed: bool = False
    transport: str = ""
    secure: bool = False
    transports: tuple[str, ...] = ("udp",)
    kinds: tuple[str, ...] = ("A",)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Transports that would do."""
        if self.transport:
            return (self.transport,)
        return tuple(t for t in self.transports if t == "tls") if self.secure else self.transports


class Service(NamedTuple):
    """The servers of a domain for one transport; without records it says that it has none."""

    transport: str
    records: tuple[Srv, ...]


class Found(NamedTuple):
    """What a domain says: its services in order of preference, none where it has no SRV records, and the addresses of
    the names in them, or of itself. `ttl` are the seconds that it holds."""

    services: tuple[Service, ...]
    addresses: Mapping[str, tuple[str, ...]]
    ttl: float

    @property
    def leads_somewhere(self) -> bool:
        return any(self.addresses.values())


class Candidate(NamedTuple):
    transport: str
    address: str
    port: int


NOTHING: Final = Found((), {}, MISSED_LASTS)


def found_at(goal: Goal, *addresses: str, ttl: float = 60.0) -> Found:
    """What is found of a name that has addresses and nothing else."""
    return Found((), {goal.name: addresses}, ttl)


# --- asking ---------------------------------------------------------------------------------------------------------

Survey = Generator[tuple[Question, ...], Answers, Found]


def survey(goal: Goal) -> Survey:
    """Yields questions, all of which may be asked at once, and takes their answers; returns what is found."""
    known: dict[Question, Answer | None] = {}
    own = [Question(goal.name, kind) for kind in goal.kinds]
    direct = {t: Question(_PREFIXES[t] + goal.name, "SRV") for t in goal.wanted if t in _PREFIXES}
    pointers = Question(goal.name, "NAPTR")
    if goal.addressed or not has_services(goal.name):
        known.update((yield tuple(own)))
        return Found((), _addresses(known, (goal.name,), goal.kinds), _lasts(known))
    known.update((yield (*([] if goal.transport else [pointers]), *direct.values(), *own)))
    asked = _asked_by(known.get(pointers), goal)
    missing = tuple(dict.fromkeys(question for _, question in asked if question not in known))
    if missing:
        known.update((yield missing))
    services = _services(asked, known) or _services(direct.items(), known)
    targets = dict.fromkeys(record.target for service in services for record in service.records)
    names = tuple(targets)[:MOST_RECORDS]
    further = tuple(
        question for name in names for kind in goal.kinds if (question := Question(name, kind)) not in known
    )
    if further:
        known.update((yield further))
    if services and goal.name not in names:
        known = {question: answer for question, answer in known.items() if question not in own}
    elif not services:
        names = (goal.name,)
    return Found(services, _addresses(known, names, goal.kinds), _lasts(known))


def has_services(name: str) -> bool:
    """Whether a name may have SRV records: one without a dot is of this site, and not of the DNS."""
    return "." in name


def _asked_by(answer: Answer | None, goal: Goal) -> list[tuple[str, Question]]:
    """Transport and SRV name of the NAPTR records that we can use, best first (§4.1)."""
    found = []
    for record in sorted(answer.records if answer is not None else ())[:MOST_RECORDS]:
        transport = _SERVICES.get(record.service.upper(), "")
        if transport in goal.wanted and record.flags.lower() == "s" and record.replacement:
            found.append((transport, Question(record.replacement, "SRV")))
    return found


def _services(asked: Iterable[tuple[str, Question]], known: Answers) -> tuple[Service, ...]:
    found = []
    for transport, question in asked:
        answer = known.get(question)
        if answer is not None and answer.records:
            records = sorted(record for record in answer.records if record.target and record.port)
            found.append(Service(transport, tuple(records[:MOST_RECORDS])))
    return tuple(found)


def _addresses(known: Answers, names: Iterable[str], kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Name → addresses, A and AAAA together."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        answers = (known.get(Question(name, kind)) for kind in kinds)
        addresses = tuple(address for answer in answers if answer is not None for address in answer.records)
        if addresses:
            found[name] = addresses
    return found


def _lasts(known: Answers) -> float:
    """As long as the record that goes first; nothing but silence is a failure."""
    times = [answer.ttl for answer in known.values() if answer is not None]
    if not times:
        return MISSED_LASTS
    if len(times) < len(known):
        times.append(UNSURE_LASTS if any(answer is not None and answer.records for answer in known.values()) else
                     MISSED_LASTS)  # fmt: skip
    return min(LONGEST, *times)


# --- choosing -------------------------------------------------------------------------------------------------------


def candidates(
    goal: Goal,
    found: Found,
    choose: Callable[[int], int],
    order: Callable[[Sequence[str]], Sequence[str]],
    ports: Mapping[str, int],
    otherwise: str = "",
) -> list[Candidate]:
    """Servers to try one after the other (§4.3). `choose(n)` draws a number of 0 to n; `order` puts the addresses of
    one host in order; `ports` are those of each transport where no record says one; `otherwise` is the transport where
    neither the URI nor the domain says one.

    A domain whose SRV records name only itself as not served has none, and its address is not asked (RFC 2782).
    """
    out: list[Candidate] = []
    if found.services:
        for transport, records in found.services:
            for record in in_order(records, choose):
                there = order(found.addresses.get(record.target, ()))
                out += [Candidate(transport, address, record.port) for address in there]
    else:
        transport = goal.transport or (otherwise if otherwise in goal.wanted else "") or next(iter(goal.wanted), "")
        there = order(found.addresses.get(goal.name, ())) if transport in ports else ()
        out += [Candidate(transport, address, ports[transport]) for address in there]
    return list(dict.fromkeys(out))[:MOST_CANDIDATES]


def in_order(records: Sequence[Srv], choose: Callable[[int], int]) -> list[Srv]:
    """RFC 2782: by priority; among equals drawn one after the other, each with a chance of its weight, those of weight
    0 with a small one."""
    out: list[Srv] = []
    left = sorted(records, key=lambda record: (record.priority, record.weight))
    while left:
        equal = [record for record in left if record.priority == left[0].priority]
        left = left[len(equal) :]
        while len(equal) > 1:
            drawn, total = choose(sum(record.weight for record in equal)), 0
            for record in equal:
                total += record.weight
                if total >= drawn:
                    break
            equal.remove(record)
            out.append(record)
        out += equal
    return out
