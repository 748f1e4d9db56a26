"""Look-ups at name servers on real sockets: servers that are late, wrong, silent, dead, cut short, in a ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import gevent
import pytest

from orchestrator.runtime.resolve import ResolvConf, Resolver, read_hosts, read_resolv_conf
from orchestrator.sip.locate import Found, Goal, Srv
from orchestrator.testing.name_server import NameServer, Reply, replies_of

ZONE = """\
example.com. 300 IN NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.example.com.
example.com. 300 IN NAPTR 20 10 "s" "SIP+D2U" "" _sip._udp.example.com.
_sip._tcp.example.com. 200 IN SRV 1 5 5070 one.example.com.
_sip._udp.example.com. 200 IN SRV 1 5 5060 two.example.com.
one.example.com. 100 IN A 192.0.2.1
one.example.com. 100 IN AAAA 2001:db8::1
two.example.com. 100 IN CNAME three.example.com.
three.example.com. 90 IN A 192.0.2.3
www.example.com. 60 IN A 192.0.2.80
ring.example.com. 60 IN CNAME gnir.example.com.
gnir.example.com. 60 IN CNAME ring.example.com.
desk.site.example. 60 IN A 192.0.2.5
"""
SOA = "example.com. 3600 IN SOA ns.example.com. root.example.com. 1 7200 900 1209600 77"
GOAL = Goal("example.com", transports=("udp", "tcp"), kinds=("A", "AAAA"))


answer = replies_of(ZONE, SOA)


class Server(NameServer):
    """One with this zone, unless it is told otherwise."""

    def __init__(self, reply: Reply = answer, reply_tcp: Reply = answer) -> None:
        super().__init__(reply, reply_tcp)


Make = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Make]:
    servers: list[Server] = []

    def make(*replies: Reply) -> Server:
        servers.append(Server(*replies))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def look(*servers: Server | tuple[str, int], goal: Goal = GOAL, timeout: float = 2.0, **files: Path) -> Found:
    addresses = [server.address if isinstance(server, Server) else server for server in servers]
    given = {"hosts": Path("/nowhere"), "resolv_conf": Path("/nowhere"), **files}
    return Resolver(addresses, timeout, **given).find(goal)


def test_services_and_addresses_with_their_times(serve: Make) -> None:
    found = look(serve())
    assert [(service.transport, service.records) for service in found.services] == [
        ("tcp", (Srv(1, 5, 5070, "one.example.com"),)),
        ("udp", (Srv(1, 5, 5060, "two.example.com"),)),
    ]
    assert dict(found.addresses) == {
        "one.example.com": ("192.0.2.1", "2001:db8::1"),
        "two.example.com": ("192.0.2.3",),
    }, "the alias is followed"
    assert found.ttl == 77.0, "two.example.com has no AAAA, and the SOA says for how long that holds"


def test_nothing_holds_as_long_as_the_zone_says(serve: Make) -> None:
    found = look(serve(), goal=GOAL._replace(name="gone.example.com"))
    assert (found.leads_somewhere, found.ttl) == (False, 77.0)


def test_names_in_a_ring_and_names_that_are_none_lead_nowhere(serve: Make) -> None:
    server = serve()
    for name in ("ring.example.com", "a..b.example", "x" * 64 + ".example", "\ufffd.example"):
        began = monotonic()
        assert not look(server, goal=GOAL._replace(name=name, addressed=True)).leads_somewhere
        assert monotonic() - began < 1.5, "without waiting"
    assert len(server.asked) < 30


def _forged(query: Any) -> list[Any]:
    other, wrong = answer(query), dns.message.make_response(query)
    other.id ^= 1
    wrong.question[0] = dns.message.make_query("evil.example", "A").question[0]
    return [b"garbage", b"", other, wrong, answer(query)]


def test_what_is_no_answer_to_the_question_is_passed_over(serve: Make) -> None:
    assert look(serve(_forged)).leads_somewhere


def _cut(query: Any) -> Any:
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response


def test_a_long_answer_is_fetched_over_tcp(serve: Make) -> None:
    server = serve(_cut)
    assert look(server).addresses["one.example.com"] == ("192.0.2.1", "2001:db8::1")
    assert any(line.startswith("tcp ") for line in server.asked)


def _refuse(query: Any) -> Any:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response


@pytest.mark.parametrize("first", ["silent", "failing", "dead"])
def test_the_next_server_is_asked(serve: Make, first: str) -> None:
    dead = ("127.0.0.1", 1)
    bad: Any = dead if first == "dead" else serve(_refuse if first == "failing" else lambda query: None)
    goal = GOAL._replace(name="www.example.com", addressed=True)
    assert look(bad, serve(), goal=goal, timeout=4.0).addresses["www.example.com"] == ("192.0.2.80",)


def test_servers_that_say_nothing_cost_their_time_and_no_more(serve: Make) -> None:
    began = monotonic()
    assert not look(serve(lambda query: None), timeout=0.3).leads_somewhere
    assert 0.25 < monotonic() - began < 5.0
    assert not look(("127.0.0.1", 1)).leads_somewhere and not look().leads_somewhere


def test_a_server_that_is_silent_about_what_it_does_not_know_ends_no_telephony(serve: Make) -> None:
    def reply(query: Any) -> Any:
        return answer(query) if query.question[0].to_text().endswith((" A", " AAAA")) else None

    goal = GOAL._replace(name="www.example.com")
    assert look(serve(reply), goal=goal, timeout=0.5).addresses == {"www.example.com": ("192.0.2.80",)}


def test_look_ups_wait_beside_each_other_and_hold_up_nobody(serve: Make) -> None:
    def slow(query: Any) -> Any:
        gevent.sleep(0.2)
        return answer(query)

    resolver = Resolver([serve(slow).address], 4.0, Path("/nowhere"), Path("/nowhere"))
    goal = GOAL._replace(name="www.example.com", addressed=True)
    ticks: list[float] = []

    def tick() -> None:
        while True:
            ticks.append(monotonic())
            gevent.sleep(0.005)

    ticker, began = gevent.spawn(tick), monotonic()
    found = [gevent.spawn(resolver.find, goal) for _ in range(20)]
    gevent.joinall(found)
    took = monotonic() - began
    ticker.kill()
    assert all(greenlet.value.leads_somewhere for greenlet in found)
    assert took < 20 * 0.2, "not one after the other"
    assert len(ticks) > 5, "the loop turned meanwhile"


def test_the_hosts_file_comes_first_and_is_read_again(serve: Make, tmp_path: Path) -> None:
    server, hosts = serve(), tmp_path / "hosts"
    hosts.write_text("192.0.2.7 Gateway.example.com gw # a comment\n::1 gw\n\nbad\n")
    found = look(server, goal=GOAL._replace(name="gateway.example.com"), hosts=hosts)
    assert dict(found.addresses) == {"gateway.example.com": ("192.0.2.7",)} and server.asked == []
    assert read_hosts(hosts.read_text())["gw"] == ("192.0.2.7", "::1")
    assert look(goal=GOAL._replace(name="localhost")).addresses["localhost"] == ("127.0.0.1", "::1")
    resolver = Resolver([server.address], 1.0, Path("/nowhere"), hosts)
    assert resolver.find(GOAL._replace(name="gw", kinds=("A",))).addresses["gw"] == ("192.0.2.7",)
    hosts.write_text("192.0.2.77 gw\n")
    resolver._hosts._looked = -1e9
    assert resolver.find(GOAL._replace(name="gw")).addresses["gw"] == ("192.0.2.77",)


def test_a_short_name_goes_through_the_search_list(serve: Make) -> None:
    server = serve()
    resolver = Resolver([server.address], 1.0, Path("/nowhere"), Path("/nowhere"))
    resolver._conf._value, resolver._conf._looked = ResolvConf(search=("site.example",)), 1e18
    assert resolver.find(GOAL._replace(name="desk", kinds=("A",))).addresses["desk"] == ("192.0.2.5",)
    assert server.asked == ["desk.site.example. IN A"]


def test_what_resolv_conf_says() -> None:
    text = (
        "# us\nnameserver 192.0.2.53\nnameserver 2001:db8::53 ; comment\nsearch A.example b.example.\noptions ndots:3\n"
    )
    assert read_resolv_conf(text) == ResolvConf(
        (("192.0.2.53", 53), ("2001:db8::53", 53)), ("a.example", "b.example"), 3
    )
    assert read_resolv_conf("nameserver\noptions ndots:x\nnonsense") == ResolvConf()
