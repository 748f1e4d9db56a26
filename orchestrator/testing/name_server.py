"""A name server on loopback that says what the test tells it: for look-ups on real sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import gevent
from gevent import socket

Reply = Callable[[Any], Any]
"""Makes of a query what is sent back: a message, octets, a list of them, or None for silence."""


def replies_of(zone: str, soa: str) -> Reply:
    """What an honest server says that has these records, one a line as in a zone file, and this SOA record; it follows
    no alias."""

    def reply(query: Any) -> Any:
        response = dns.message.make_response(query)
        question = query.question[0]
        lines = [line for line in zone.splitlines() if line.split()[0] == question.name.to_text()]
        kind = question.to_text().split()[-1]
        for line in lines:
            name, ttl, _, of, *data = line.split()
            if of in (kind, "CNAME"):
                response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", of, " ".join(data)))
        if not lines:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if not response.answer:
            name, ttl, _, of, *data = soa.split()
            response.authority.append(dns.rrset.from_text(name, int(ttl), "IN", of, " ".join(data)))
        return response

    return reply


def _pair() -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP with one port. Which ports are free for UDP says nothing about TCP: it may take a few
    tries."""
    for _ in range(50):
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
        else:
            return udp, tcp
    raise OSError("no port is free for both UDP and TCP")


class NameServer:
    """A name server on loopback; `reply` says what it does with a query by UDP, `reply_tcp` by TCP."""

    def __init__(self, reply: Reply, reply_tcp: Reply | None = None) -> None:
        self.reply, self.reply_tcp = reply, reply_tcp or reply
        self.asked: list[str] = []
        self._udp, self._tcp = _pair()
        self.address: tuple[str, int] = self._udp.getsockname()
        self._tcp.listen(5)
        self._work: list[Any] = [gevent.spawn(self._serve_udp), gevent.spawn(self._serve_tcp)]

    def _serve_udp(self) -> None:
        while True:
            octets, source = self._udp.recvfrom(4096)
            self._work.append(gevent.spawn(self._one, octets, source))

    def _one(self, octets: bytes, source: Any) -> None:
        query = dns.message.from_wire(octets)
        self.asked.append(query.question[0].to_text())
        said = self.reply(query)
        for each in said if isinstance(said, list) else [said]:
            if each is not None:
                self._udp.sendto(each if isinstance(each, bytes) else each.to_wire(), source)

    def _serve_tcp(self) -> None:
        while True:
            peer, _ = self._tcp.accept()
            octets = peer.recv(4096)[2:]
            self.asked.append("tcp " + dns.message.from_wire(octets).question[0].to_text())
            said = self.reply_tcp(dns.message.from_wire(octets))
            if said is not None:
                wire = said.to_wire()
                peer.sendall(len(wire).to_bytes(2, "big") + wire)
            peer.close()

    def close(self) -> None:
        gevent.killall(self._work)
        self._udp.close()
        self._tcp.close()
