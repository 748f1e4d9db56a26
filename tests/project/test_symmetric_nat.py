"""A phone behind a real symmetric NAT is reached for INVITE, in-dialog requests and BYE, also after a change of port.

Three network namespaces: the server and alice with public addresses, a router that masquerades with a random port for
each pair of addresses (Linux' `--random-fully`), and bob behind it. When the router loses and regains its public
address it forgets all mappings, as one does that reconnects. It lets in what answers a mapping, and nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from compose_lab import SEARCHED, Namespace, Output, Processes
from gevent import socket

from orchestrator.sip.message import Response, parse_message
from orchestrator.testing.phone import Phone, PhoneCall
from orchestrator.testing.sockets import Wire, wait_until

SERVER, ALICE, ROUTER, BOB = "198.51.100.2", "198.51.100.3", "198.51.100.1", "10.0.0.2"
PING = 1
"""Seconds between two OPTIONS to bob."""
FLOW = """
flowlang: 1
flows:
  gone:
    on: unregistered
    do: [log: 'gone: ${event.aor}']
"""
STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42orchestrator"
"""A Binding request (RFC 8489 §5)."""
CLONE_NEWNET = 0x40000000
COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"
"""Mappings of the namespace."""
TOOLS = ("ip", "iptables", "nsenter", "setpriv", "unshare")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(name, path=SEARCHED) is None for name in TOOLS),
    reason="network namespaces are root's, and need ip, iptables, nsenter, setpriv and unshare",
)


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Sockets opened here are in that namespace, wherever they are used."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, other = Path("/proc/thread-self/ns/net"), Path(f"/proc/{namespace.pid}/ns/net")
    with here.open() as home, other.open() as there:
        assert libc.setns(there.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


class Stream:
    """A connection to the server that a phone opens anew when it has been reset."""

    def __init__(self, namespace: Namespace, take: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._namespace = namespace
        self._take = take
        self.dial()

    def dial(self) -> None:
        with inside(self._namespace):
            self._socket = socket.socket()
        self._socket.settimeout(10)
        self._socket.connect((SERVER, 5060))
        self._socket.settimeout(None)
        self._reader = gevent.spawn(self._read, self._socket)

    def send(self, data: bytes, _: tuple[str, int]) -> None:
        self._socket.sendall(data)

    def _read(self, connection: socket.socket) -> None:
        held = b""
        while more := connection.recv(65_535):
            held += more
            while (end := held.find(b"\r\n\r\n")) >= 0:
                head = held[:end].lower()
                size = int(head.partition(b"\ncontent-length:")[2].partition(b"\r")[0] or b"0")
                if len(held) < end + 4 + size:
                    break
                data, held = held[: end + 4 + size], held[end + 4 + size :]
                self._take(data, (SERVER, 5060))

    def close(self) -> None:
        self._reader.kill()
        self._socket.close()


class Lab:
    """All of it; `remap` has the router forget its mappings."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.public, self.router, self.private = (Namespace(processes) for _ in range(3))
        self.router.ip(
            f"link add out type veth peer name eth0 netns {self.public.pid}",
            f"link add in type veth peer name eth0 netns {self.private.pid}",
            f"addr add {ROUTER}/24 dev out",
            "addr add 10.0.0.1/24 dev in",
            "link set out up",
            "link set in up",
        )
        self.public.ip(
            "link set lo up",
            f"addr add {SERVER}/24 dev eth0",
            f"addr add {ALICE}/24 dev eth0",
            "link set eth0 up",
        )
        self.private.ip(
            "link set lo up", f"addr add {BOB}/24 dev eth0", "link set eth0 up", "route add default via 10.0.0.1"
        )
        self.router.do("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.router.do("sh", "-c", "iptables -t nat -A POSTROUTING -o out -j MASQUERADE --random-fully")
        self.output = Output(folder / "log")
        (folder / "gone.flow.yaml").write_text(FLOW)
        settings = {
            "sip": {"listen": [f"udp:{SERVER}:5060", f"tcp:{SERVER}:5060"], "domains": ["example.com"]},
            "location": "memory:",
            "registrar": {"ping": {"phones": "nat", "every": f"{PING}s", "missed": 3}},
            "freeswitch": {},
            "flows": ["gone.flow.yaml"],
            "admin": {"listen": f"{SERVER}:8080"},
        }
        (folder / "orchestrator.yml").write_text(json.dumps(settings))
        self.server = self.public.start(
            [sys.executable, "-m", "orchestrator", "run", "-c", "orchestrator.yml"], self.output.path, folder
        )
        assert wait_until(lambda: self.output.find("(?m)^ready ") or self.server.poll() is not None, 60)
        assert self.server.poll() is None, self.output.text()

    def remap(self) -> None:
        """The kernel forgets them some time after the address has gone."""
        self.router.ip(f"addr del {ROUTER}/24 dev out")
        wait_until(lambda: self.router.ask(("cat", COUNT))[1].strip() == "0", 5)
        self.router.ip(f"addr add {ROUTER}/24 dev out")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    processes = Processes()
    try:
        yield Lab(tmp_path_factory.mktemp("nat"), processes)
    finally:
        processes.end()


class Pair:
    """alice, in the open, and bob behind the router, who knows his private address only."""

    def __init__(self, lab: Lab, transport: str) -> None:
        self.lab = lab
        self.seen: list[int] = []
        """The ports that the answers to bob's REGISTERs tell."""
        self.stun: list[bytes] = []
        with inside(lab.public):
            self.outside = Wire(ALICE)
        self.alice = Phone("alice@example.com", self.outside.address, (SERVER, 5060), self.outside.send)
        self.outside.take = self.alice.receive
        with inside(lab.private):
            self.wire: Wire | Stream = Wire(BOB) if transport == "udp" else Stream(lab.private, self.hear)
        address = self.wire.address if isinstance(self.wire, Wire) else (BOB, 5060)
        self.bob = Phone("bob@example.com", address, (SERVER, 5060), self.say, transport=transport.upper())
        self.bob.here += b";rport"
        if isinstance(self.wire, Wire):
            self.wire.take = self.hear
        else:
            self.bob.contact = b"<sip:bob@%b:5060;transport=tcp>" % BOB.encode()
        self.bob.on_invite = PhoneCall.answer

    def say(self, data: bytes, to: tuple[str, int]) -> None:
        self.wire.send(data, to)

    def hear(self, data: bytes, source: tuple[str, int]) -> None:
        if data[:1] == b"\x01":
            self.stun.append(data)
            return
        message = parse_message(data)
        if isinstance(message, Response) and message.cseq_method == b"REGISTER":
            self.seen.append(message.via.rport or 0)
        self.bob.receive(data, source)

    def register(self, expires: int = 3600) -> int:
        """Returns the port at which the server sees bob."""
        before = len(self.bob.registered)
        self.bob.register(expires)
        assert wait_until(lambda: len(self.bob.registered) > before)
        assert self.bob.registered[-1] == 200
        return self.seen[-1]

    def remap(self) -> None:
        """Also a phone's connection is gone then; it opens another."""
        self.lab.remap()
        if isinstance(self.wire, Stream):
            self.wire.close()
            self.wire.dial()

    def call(self) -> tuple[PhoneCall, PhoneCall]:
        before = len(self.bob.calls)
        call = self.alice.invite("bob@example.com")
        assert wait_until(lambda: len(self.bob.calls) > before), "the INVITE did not reach bob"
        answered = self.bob.calls[-1]
        assert wait_until(lambda: call.state == "answered" and answered.acknowledged)
        return call, answered

    def info(self, call: PhoneCall) -> None:
        self._asked(self.alice, lambda: call.ask("INFO"))

    def info_back(self, answered: PhoneCall) -> None:
        self._asked(self.bob, lambda: answered.ask("INFO"))

    @staticmethod
    def _asked(phone: Phone, ask: Callable[[], None]) -> None:
        replies = phone.replies.setdefault(b"INFO", [])
        before = len(replies)
        ask()
        assert wait_until(lambda: len(replies) > before), "no answer to INFO"
        assert replies[-1] == 200

    def hang_up(self, call: PhoneCall, answered: PhoneCall) -> None:
        call.hangup()
        assert wait_until(lambda: answered.state == "ended"), "the BYE did not reach bob"
        assert wait_until(lambda: self.alice.replies.get(b"BYE", [])[-1:] == [200])

    def mapped(self) -> int:
        """The port that the answer to STUN tells (XOR-MAPPED-ADDRESS, RFC 8489 §14.2)."""
        before = len(self.stun)
        self.say(STUN, (SERVER, 5060))
        assert wait_until(lambda: len(self.stun) > before), "no answer to STUN"
        body = self.stun[-1][20:]
        assert body[:6] == b"\x00\x20\x00\x08\x00\x01"
        assert bytes(a ^ b for a, b in zip(body[8:12], STUN[4:8], strict=True)) == socket.inet_aton(ROUTER)
        return int.from_bytes(body[6:8], "big") ^ 0x2112

    def close(self) -> None:
        self.register(0)
        self.wire.close()
        self.outside.close()


@pytest.fixture(params=["udp", "tcp"])
def pair(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(lab, request.param)
    yield pair
    pair.close()


def test_calls_before_and_after_the_mapping_changes(pair: Pair) -> None:
    first = pair.register()
    assert first != pair.bob.address[1], "the router gives it another port"
    call, answered = pair.call()
    pair.info(call)
    pair.info_back(answered)
    pair.hang_up(call, answered)
    pair.remap()
    assert pair.register() != first
    call, answered = pair.call()
    pair.info(call)
    pair.info_back(answered)
    answered.hangup()
    assert wait_until(lambda: call.state == "ended"), "the BYE did not reach alice"


def test_a_call_goes_on_when_the_mapping_changes_inside_it(pair: Pair) -> None:
    pair.register()
    call, answered = pair.call()
    for _ in range(2):
        pair.remap()
        pair.register()
        pair.info(call)
        pair.info_back(answered)
    pair.hang_up(call, answered)


def test_stun_at_the_sip_port_tells_the_mapping(lab: Lab) -> None:
    pair = Pair(lab, "udp")
    first = pair.mapped()
    assert pair.register() == first
    came: list[tuple[str, int]] = []
    pair.outside.take = lambda data, source: came.append(source)
    pair.say(STUN, pair.outside.address)
    assert wait_until(lambda: came)
    assert came[0][0] == ROUTER
    assert came[0][1] != first, "each peer sees another port: the NAT is symmetric"
    pair.remap()
    second = pair.mapped()
    assert second != first
    assert pair.register() == second
    pair.close()


def test_a_phone_that_is_gone_is_found_gone(lab: Lab) -> None:
    pair = Pair(lab, "udp")
    pair.register()
    assert wait_until(lambda: any(request.method == b"OPTIONS" for request in pair.bob.requests)), "no OPTIONS"
    pair.lab.output.look_away()
    pair.remap()  # it does not notice: neither registers nor sends anything
    assert wait_until(lambda: lab.output.find("gone: bob@example.com")), lab.output.text()
    assert lab.output.find("no answer to OPTIONS")
    pair.wire.close()
    pair.outside.close()
