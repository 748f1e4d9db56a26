"""What those who look at a server cost its calls: setup time with 1,000 live calls, with and without open streams.

    python -m bench.console [--rate 50] [--hold 20] [--seconds 8] [--rounds 3] [--path PATH …]

SIPp makes RATE calls a second through a flow, each HOLD seconds long, so RATE * HOLD live all the time. Beside them
a caller here makes 40 short ones a second: the time from its INVITE to the 200 is the figure, taken by the kernel when
the datagram arrives. Conditions take turns, so that a machine that drifts drifts for all: nobody looks; one stream;
fifty; fifty and one that never reads. An update is late by the time from the REGISTER or INVITE that causes it to the
octets that show it, over all streams.

PATH is a stream of the admin interface: one of the API, or one of the pages of the console. The server has a core of
its own, everything else the other one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from bench.children import ends_with_us
from bench.figures import Figure, Skipped
from bench.relay import SCENARIOS
from bench.servers import HOST, Orchestrator, free_port, on_core, udp_bound, wait_until
from orchestrator.testing.sipp import Sipp, run_sipp, sipp_path

FLOW = "flowlang: 1\nflows:\n  ring:\n    on: invite\n    do: [relay: {to: registered, ring: 40s}]\n"
TOKEN = "bench-token-0123456789"
EVENTS = "/api/v1/events/stream"
CONDITIONS: Mapping[str, tuple[int, int]] = {"nobody": (0, 0), "1": (1, 0), "50": (50, 0), "50 + a slow one": (50, 1)}
"""What is open: streams that are read, and streams that are not."""
EVERY = 1 / 40
"""Seconds between two calls that are measured."""
MARKED = 10
"""One of so many registers an address of its own, and stays up for a while: updates are recognised by its name."""
STAYS = 2.0
MARK = re.compile(rb"probe(\d+)x")

SO_TIMESTAMPNS = 35
"""Linux: the kernel says when it got a datagram, in nanoseconds."""

SETTLES = 1.5
"""Seconds from when streams are opened to when calls count."""


@dataclass(slots=True)
class Seen:
    """What one condition has shown, over all its rounds."""

    setups: list[float] = field(default_factory=list)
    """Milliseconds."""
    updates: list[float] = field(default_factory=list)
    cpu: float = 0.0
    seconds: float = 0.0
    octets: int = 0
    lost: int = 0
    """Calls without a final answer within their time."""
    refused: Counter[str] = field(default_factory=Counter)
    """Status → calls that were not answered."""


# --- the calls that are measured --------------------------------------------------------------------------------------


_NUMBERS = count(1)
"""Of calls: no two have the same name, so that a mark is of one condition."""


class Caller:
    """Makes calls over one socket, one after the other and some at a time."""

    def __init__(self, server: str, port: int) -> None:
        self._to = server, port
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((HOST, 0))
        self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._here = f"{HOST}:{self._sock.getsockname()[1]}"
        self._mine = os.urandom(4).hex()
        self._sent: dict[str, int] = {}
        self._ends: list[tuple[float, str, bytes]] = []
        self.setups: list[float] = []
        self.refused: Counter[str] = Counter()
        self.marks: dict[int, int] = {}
        """Number of a marked call → when it was sent, ns."""

    def play(self, seconds: float) -> None:
        """Make calls for so long, and wait for their answers."""
        begun = time.monotonic()
        due = begun
        while (now := time.monotonic()) < begun + seconds:
            if now >= due:
                due += EVERY
                self._invite()
            self._listen(max(0.0, min(due, begun + seconds) - time.monotonic()))
        late = time.monotonic() + STAYS + 0.5
        while (self._sent or self._ends) and time.monotonic() < late:
            self._listen(0.05)

    @property
    def lost(self) -> int:
        return len(self._sent)

    def _invite(self) -> None:
        number = next(_NUMBERS)
        name = f"probe{number}x"
        marked = number % MARKED == 0
        if marked:
            self.marks[number] = time.time_ns()
            self._send(
                "REGISTER",
                f"{name}-{self._mine}",
                name,
                "1 REGISTER",
                f"Contact: <sip:{name}@{self._here}>",
                "Expires: 60",
            )
        call = f"{'m' if marked else 'p'}{number}-{self._mine}"
        self._sent[call] = time.time_ns()
        self._send("INVITE", call, name, "1 INVITE", f"Contact: <sip:{name}@{self._here}>", to="bob")

    def _send(self, method: str, call: str, name: str, cseq: str, *more: str, to: str = "", uri: str = "") -> None:
        to = to or name
        lines = [
            f"{method} {uri or f'sip:{to}@example.com'} SIP/2.0",
            f"Via: SIP/2.0/UDP {self._here};branch=z9hG4bK{method}{call}",
            "Max-Forwards: 70",
            f"From: <sip:{name}@example.com>;tag=t{call}",
            *(() if any(line.startswith("To:") for line in more) else (f"To: <sip:{to}@example.com>",)),
            f"Call-ID: {call}",
            f"CSeq: {cseq}",
            *more,
            "Content-Length: 0",
        ]
        self._sock.sendto("\r\n".join([*lines, "", ""]).encode(), self._to)

    def _listen(self, patience: float) -> None:
        self._sock.settimeout(max(0.0005, patience))
        try:
            octets, control, _, _ = self._sock.recvmsg(4096, 64)
        except TimeoutError:
            octets = b""
        if b"CSeq: 1 INVITE" in octets:
            if octets.startswith(b"SIP/2.0 200"):
                self._answered(octets, _stamp(control))
            elif not octets.startswith(b"SIP/2.0 1"):
                self._refused(octets)
        now = time.monotonic()
        for end in [end for end in self._ends if end[0] <= now]:
            self._ends.remove(end)
            self._in_dialog("BYE", end[1], "2 BYE", end[2])

    def _answered(self, octets: bytes, at: int) -> None:
        call = _header(octets, b"Call-ID").decode()
        sent = self._sent.pop(call, None)
        if sent is None:
            return
        self.setups.append((at - sent) / 1e6)
        self._in_dialog("ACK", call, "1 ACK", octets)
        self._ends.append((time.monotonic() + (STAYS if call.startswith("m") else 0.0), call, octets))

    def _refused(self, octets: bytes) -> None:
        call = _header(octets, b"Call-ID").decode()
        if self._sent.pop(call, None) is not None:
            self.refused[octets[8:11].decode()] += 1
        name = _header(octets, b"From").decode().partition("sip:")[2].partition("@")[0]
        self._send("ACK", call, name, "1 ACK", f"To: {_header(octets, b'To').decode()}", uri="sip:bob@example.com")

    def _in_dialog(self, method: str, call: str, cseq: str, answer: bytes) -> None:
        routes = [f"Route: {line.decode()}" for line in reversed(_headers(answer, b"Record-Route"))]
        uri = _header(answer, b"Contact").decode().strip("<>").partition(">")[0]
        name = _header(answer, b"From").decode().partition("sip:")[2].partition("@")[0]
        self._send(method, call, name, cseq, f"To: {_header(answer, b'To').decode()}", *routes, uri=uri)

    def close(self) -> None:
        self._sock.close()


def _headers(octets: bytes, name: bytes) -> list[bytes]:
    return [line.partition(b":")[2].strip() for line in octets.split(b"\r\n") if line.startswith(name + b":")]


def _header(octets: bytes, name: bytes) -> bytes:
    return _headers(octets, name)[0]


def _stamp(control: Sequence[tuple[int, int, bytes]]) -> int:
    """When the kernel got a datagram, ns; now, where it does not say."""
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("ll", value[:16])
            return int(seconds * 10**9 + nanoseconds)
    return time.time_ns()


# --- those who look, in a process of their own ------------------------------------------------------------------------


def look(port: int, paths: Sequence[str], count: int, slow: int) -> None:
    """Read streams until stdin ends; then print when each mark came on each, and how many octets came."""
    chosen = selectors.DefaultSelector()
    tails: dict[socket.socket, bytes] = {}
    shown: dict[socket.socket, set[bytes]] = {}
    for number in range(count + slow):
        sock = socket.create_connection((HOST, port), 10)
        path = paths[number % len(paths)]
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\n\r\n"
        )
        sock.sendall(head.encode())
        tails[sock] = b""
        shown[sock] = set()
        if number < count:
            sock.setblocking(False)
            chosen.register(sock, selectors.EVENT_READ)
    chosen.register(sys.stdin, selectors.EVENT_READ)
    seen: dict[str, list[int]] = {}
    octets, refused, going = 0, 0, True
    while going:
        for key, _ in chosen.select(1.0):
            if key.fileobj is sys.stdin:
                going = False
                continue
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            got = sock.recv(262_144)
            at = time.time_ns()
            if not got:
                refused += 1
                chosen.unregister(sock)
                continue
            if not tails[sock] and not got.startswith(b"HTTP/1.1 200"):
                refused += 1
            octets += len(got)
            new = set(MARK.findall(tails[sock] + got)) - shown[sock]  # a list that is drawn again shows it again
            shown[sock] |= new
            for mark in new:
                seen.setdefault(mark.decode(), []).append(at)
            tails[sock] = got[-24:]
    print(json.dumps({"seen": seen, "octets": octets, "refused": refused}))


@contextmanager
def looking(port: int, paths: Sequence[str], count: int, slow: int) -> Iterator[dict[str, Any]]:
    """Streams are open meanwhile; what they saw is in the dict afterwards."""
    found: dict[str, Any] = {"seen": {}, "octets": 0, "refused": 0}
    if not count:
        yield found
        return
    command = [sys.executable, "-m", "bench.console", "--look", str(port), str(count), str(slow), *paths]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=ends_with_us()
    )
    try:
        yield found
        found.update(json.loads(process.communicate(timeout=30)[0]))
    finally:
        process.kill()
        process.wait()


# --- all together -----------------------------------------------------------------------------------------------------


def held_scenario(folder: Path) -> Path:
    """The plain caller, who hangs up after SIPp's `-d`."""
    text = (SCENARIOS / "uac.xml").read_text()
    at = text.rindex('  <send retrans="500">')
    file = folder / "held.xml"
    file.write_text(text[:at] + "  <pause/>\n" + text[at:])
    return file


def measure(server: Orchestrator, paths: Sequence[str], rounds: int, seconds: float) -> dict[str, Seen]:
    """Each condition in each round, in an order of chance."""
    found = {name: Seen() for name in CONDITIONS}
    for number in range(rounds):
        for name in random.sample(list(CONDITIONS), len(CONDITIONS)):
            count, slow = CONDITIONS[name]
            seen = found[name]
            caller = Caller(HOST, server.port)
            with looking(server.admin_port, paths, count, slow) as streams:
                time.sleep(SETTLES)
                begun, cpu = time.monotonic(), server.cpu()
                caller.play(seconds)
                seen.cpu += server.cpu() - cpu
                seen.seconds += time.monotonic() - begun
            if streams["refused"]:
                raise RuntimeError(f"{streams['refused']} streams of {count} were refused or ended")
            seen.setups += caller.setups
            seen.lost += caller.lost
            seen.refused += caller.refused
            seen.octets += streams["octets"]
            for mark, times in streams["seen"].items():
                if (sent := caller.marks.get(int(mark))) is not None:
                    seen.updates += [(at - sent) / 1e6 for at in times]
            caller.close()
            print(f"round {number + 1}: {name:16} p50 {quantile(caller.setups, 0.5):6.2f} ms", file=sys.stderr)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[int(share * 1000) - 1] if len(values) > 1 else 0.0


def run(rate: int, hold: int, seconds: float, rounds: int, paths: Sequence[str]) -> tuple[dict[str, Seen], int]:
    """What the conditions have shown, and how many calls lived. Raises Skipped."""
    if sipp_path() is None:
        raise Skipped("SIPp is not installed (Debian: sip-tester)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flow = folder / "ring.flow.yaml"
        flow.write_text(FLOW)
        admin = {"listen": f"{HOST}:{free_port(socket.SOCK_STREAM)}", "token": TOKEN, "connections_per_client": 100}
        server = stack.enter_context(Orchestrator(folder, [flow], more={"admin": {**admin, "connections": 200}}))
        server.admin_port = int(admin["listen"].rpartition(":")[2])
        stack.enter_context(on_core(-1))
        length = len(CONDITIONS) * rounds * (seconds + SETTLES + STAYS + 2.0) + hold + 10
        calls = int(rate * length)
        callee_port = free_port()
        contact = {"contact": f"{HOST}:{callee_port}"}
        proxy = f"{HOST}:{server.port}"
        run_sipp(SCENARIOS / "register.xml", proxy, folder=folder, host=HOST, keys=contact, seconds=10)
        bounds = {"folder": folder, "calls": calls + 100_000, "host": HOST, "seconds": int(length) + hold + 60}
        stack.enter_context(Sipp(SCENARIOS / "uas.xml", port=callee_port, **bounds))
        wait_until(lambda: udp_bound(HOST, callee_port), 5, "the callee does not listen")
        scenario = held_scenario(folder)
        stack.enter_context(Sipp(scenario, proxy, rate=rate, more=("-d", str(hold * 1000)), **bounds))
        time.sleep(hold + 3)
        return measure(server, paths, rounds, seconds), rate * hold


def table(found: Mapping[str, Seen], live: int) -> str:
    lines = [
        f"{live:,} live calls; setup and update in ms",
        f"{'streams':18}{'setup p50':>10}{'p99':>8}{'update p50':>12}{'p99':>8}"
        f"{'CPU':>7}{'KB/s':>8}{'lost':>6}{'calls':>8}",
    ]
    for name, seen in found.items():
        updates = seen.updates or [0.0, 0.0]
        lines.append(
            f"{name:18}{quantile(seen.setups, 0.5):>10.2f}{quantile(seen.setups, 0.99):>8.2f}"
            f"{quantile(updates, 0.5):>12.2f}{quantile(updates, 0.99):>8.2f}"
            f"{seen.cpu / max(seen.seconds, 1e-9):>7.0%}{seen.octets / 1e3 / max(seen.seconds, 1e-9):>8.0f}"
            f"{seen.lost:>6}{len(seen.setups):>8}" + "".join(f"  {code}: {n}" for code, n in seen.refused.items())
        )
    return "\n".join(lines)


def figures(rate: int = 50, hold: int = 20, seconds: float = 6.0, rounds: int = 2) -> Iterator[Figure]:
    """For `python -m bench console`. Raises Skipped."""
    found, live = run(rate, hold, seconds, rounds, [EVENTS])
    print(table(found, live), file=sys.stderr)
    alone, looked_at = found["nobody"], found["50 + a slow one"]
    ratio = quantile(looked_at.setups, 0.99) / max(1e-9, quantile(alone.setups, 0.99))
    yield Figure(f"setup time p99, {live:,} live calls, 50 streams and a slow one beside none", ratio, "x")
    yield Figure("an update on one of 50 streams, p99", quantile(looked_at.updates, 0.99), "ms", most=200.0)


QUICK = {"rate": 20, "hold": 5, "seconds": 3.0, "rounds": 1}


def main() -> int:
    if sys.argv[1:2] == ["--look"]:
        port, count, slow, *paths = sys.argv[2:]
        look(int(port), paths, int(count), int(slow))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--hold", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--path", action="append", help=f"default: {EVENTS}")
    asked = parser.parse_args()
    found, live = run(asked.rate, asked.hold, asked.seconds, asked.rounds, asked.path or [EVENTS])
    print(table(found, live))
    return 0


if __name__ == "__main__":
    sys.exit(main())
