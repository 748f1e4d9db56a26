"""What the runtime costs per datagram: an echo through reactor and transport beside a bare epoll loop in the same run.

Both servers are processes of their own, echo 877-octet datagrams on loopback, and are asked for their CPU time. A
window of datagrams is kept in flight: 1 shows the cost of a wake-up, 16 that of a batch. Rounds alternate, because a
shared machine drifts. The medians' ratio is the figure; microseconds are for orientation. Aim: 1.5 at most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import select
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from bench.figures import Figure, middle, ratios

PAYLOAD = b"x" * 877
WINDOWS = (1, 16, 64)
MOST = 1.5


def bare_epoll(pipe: Connection) -> None:
    """The least a Python server can do: poll, read until EAGAIN, send back."""
    sock = _socket()
    sock.setblocking(False)
    poll = select.epoll()
    poll.register(sock.fileno(), select.EPOLLIN)
    poll.register(pipe.fileno(), select.EPOLLIN)
    pipe.send(sock.getsockname())
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != sock.fileno():
                if pipe.recv() == "stop":
                    return
                pipe.send(time.process_time())
                continue
            try:
                while True:
                    data, source = sock.recvfrom(65_535)
                    sock.sendto(data, source)
            except BlockingIOError:
                pass


class EchoCore:
    """The smallest core: every datagram goes back where it came from."""

    def __init__(self) -> None:
        from orchestrator.history import History
        from orchestrator.timers import Timers

        self.timers = Timers()
        self.datagrams: list[tuple[bytes, Any]] = []
        self.jobs: list[Any] = []
        self.history = History()

    def receive(self, data: bytes, hop: Any, now: float) -> None:
        self.datagrams.append((data, hop))

    def receive_esl(self, server: str, event: Any, now: float) -> None: ...
    def link_changed(self, server: str, state: str, reason: str, now: float) -> None: ...
    def complete(self, job: int, result: Any, now: float) -> None: ...
    def transport_failed(self, hop: Any, data: bytes, now: float) -> None: ...

    def run_timers(self, now: float) -> None:
        self.timers.run_due(now)


def reactor(pipe: Connection) -> None:
    """The same through the reactor and its UDP transport."""
    from gevent.event import Event

    from orchestrator.runtime.reactor import READ, Reactor
    from orchestrator.runtime.udp import UdpTransport

    shell = Reactor(EchoCore(), lambda job: None)
    transport = UdpTransport("127.0.0.1", 0)
    transport.start(shell)
    stopped = Event()

    def asked() -> None:
        if pipe.recv() == "stop":
            stopped.set()
        else:
            pipe.send(time.process_time())

    shell.loop.io(pipe.fileno(), READ).start(asked)
    pipe.send(transport.address)
    stopped.wait()


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
    return sock


def exchange(address: Any, window: int, count: int) -> None:
    """Keep `window` datagrams in flight until `count` have come back."""
    sock = _socket()
    sock.connect(address)
    sock.settimeout(2)
    for _ in range(count // window):
        for _ in range(window):
            sock.send(PAYLOAD)
        for _ in range(window):
            sock.recv(65_535)
    sock.close()


def measure(
    servers: dict[str, Callable[[Connection], None]], rounds: int, count: int
) -> dict[str, dict[int, list[float]]]:
    """CPU microseconds per echoed datagram of each round, by server and window."""
    context = multiprocessing.get_context("spawn")
    running = {}
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[0]})  # inherited by the servers; the generator then moves to the other end
    for name, target in servers.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs,), daemon=True)
        process.start()
        running[name] = (ours, process, ours.recv())
    os.sched_setaffinity(0, {cpus[-1]})
    samples: dict[str, dict[int, list[float]]] = {name: {window: [] for window in WINDOWS} for name in servers}
    for _ in range(rounds):
        for window in WINDOWS:
            for name, (pipe, _, address) in running.items():
                pipe.send("cpu")
                before = pipe.recv()
                exchange(address, window, count)
                pipe.send("cpu")
                samples[name][window].append((pipe.recv() - before) / count * 1e6)
    for pipe, process, _ in running.values():
        pipe.send("stop")
        process.join(5)
    return samples


def figures(rounds: int = 5, count: int = 6_000) -> Iterator[Figure]:
    """The ratio for each window."""
    found = measure({"bare epoll": bare_epoll, "reactor": reactor}, rounds, count)
    for window in WINDOWS:
        compared = ratios(found["reactor"][window], found["bare epoll"][window])
        yield middle(f"echo beside a bare epoll loop, {window} in flight", compared, "x", most=MOST)


QUICK = {"rounds": 3, "count": 2_000}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--count", type=int, default=8_000, help="datagrams per round, server and window")
    options = arguments.parse_args()
    found = measure({"bare epoll": bare_epoll, "reactor": reactor}, options.rounds, options.count)
    for window in WINDOWS:
        bare, ours = (statistics.median(found[name][window]) for name in ("bare epoll", "reactor"))
        figures = {
            "benchmark": "reactor echo",
            "in_flight": window,
            "bare_epoll_us": round(bare, 2),
            "reactor_us": round(ours, 2),
            "ratio": round(ours / bare, 2),
            "cpus": os.cpu_count(),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
