"""Pushes to Firebase: CPU beside httpx on the same server in the same run.

The server is the one of the wake-up benchmark (bench.push), HTTP/1.1 without TLS for both. Each client runs in a
process of its own, one after the other, several rounds; only its own CPU time counts. Ours goes all the way from the
job of the core to its answer: queue, circuit, message, token, HTTP. httpx is given headers and body that are made
already.

    python -m bench.firebase [--pushes 600] [--at-once 5] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import process_time
from typing import Any

from bench.figures import Absent, Figure, Skipped, middle, ratios, render
from bench.push import PushService

TOKEN = "d" * 160
DATA = {"call": "3848276298220188511@atlanta.example.com", "from": "alice@example.com", "display_name": "Alice"}
AOR = "bob@example.com"
SAID = b'{"access_token": "t", "expires_in": 3600, "name": "projects/p/messages/0:1"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(SAID), SAID)
"""What the token endpoint and Firebase say to everything."""
MOST = 0.7
"""Of httpx's CPU."""
AT_ONCE = 5
"""More connections cost httpx several times as much for each push."""


def write_account(folder: Path, url: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    account = {"type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": key.decode()}
    (folder / "account.json").write_text(json.dumps(account | {"client_email": "a@p.example", "token_uri": url}))


# --- the two clients, each in its own process -------------------------------------------------------------------------


def ours(folder: Path, url: str, pushes: int, at_once: int) -> float:
    from gevent import monkey

    monkey.patch_all()
    from gevent.event import Event

    from orchestrator.push.supervisor import Pushes
    from orchestrator.settings import read_settings
    from orchestrator.sip.push import Push, PushAddress

    entry = f"{{account: {folder}/account.json, url: '{url}', concurrency: {at_once}}}"
    address = PushAddress("fcm", "p", TOKEN, app="p", tokens={"": TOKEN})
    outcomes: list[str] = []
    wanted, done = 0, Event()

    def answer(job: int, pushed: Any) -> None:
        outcomes.append(pushed.outcome)
        if len(outcomes) == wanted:
            done.set()

    services = Pushes(
        read_settings("bench", f"push: {{services: {{fcm: {entry}}}}}", {}).push.services.values(), answer
    )
    services.start()

    def send(count: int) -> float:
        nonlocal wanted
        outcomes.clear()
        done.clear()
        wanted, used = count, process_time()
        for job in range(count):
            services.submit(job, Push("fcm", address, "call", 20.0, AOR, collapse="c", data=DATA))
        done.wait()
        assert outcomes.count("sent") == count
        return process_time() - used

    send(at_once)
    used = send(pushes)
    services.close()
    return used


def httpx(folder: Path, url: str, pushes: int, at_once: int) -> float:
    import asyncio

    import httpx

    headers = {"authorization": "Bearer t", "content-type": "application/json"}
    android = {"priority": "high", "ttl": "20s", "collapse_key": "c"}
    message = {"data": {"kind": "call", "aor": AOR, **DATA}, "android": android, "token": TOKEN}
    body = json.dumps({"message": message}).encode()
    target = url.removesuffix("/push") + "/v1/projects/p/messages:send"

    async def run() -> float:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=at_once), timeout=60) as client:

            async def worker(numbers: Iterator[int]) -> None:
                for _ in numbers:
                    response = await client.post(target, headers=headers, content=body)
                    assert response.status_code == 200

            await worker(iter(range(at_once)))
            used, numbers = process_time(), iter(range(pushes))
            await asyncio.gather(*(worker(numbers) for _ in range(at_once)))
            return process_time() - used

    return asyncio.run(run())


CLIENTS = {"ours": ours, "httpx": httpx}


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(client: str, folder: Path, url: str, pushes: int, at_once: int) -> float:
    """Microseconds of CPU for each push."""
    command = [sys.executable, "-m", "bench.firebase", "--client", client, "--folder", str(folder), "--url", url]
    command += ["--pushes", str(pushes), "--at-once", str(at_once)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return float(output) / pushes * 1e6


def figures(pushes: int = 600, at_once: int = AT_ONCE, rounds: int = 3) -> Iterator[Figure | Absent]:
    """CPU for each push; the ratio to httpx where that is installed. Raises Skipped."""
    if not find_spec("jwt"):
        raise Skipped("the extra `push` is not installed")
    found: dict[str, list[float]] = {client: [] for client in CLIENTS if client == "ours" or find_spec("httpx")}
    with tempfile.TemporaryDirectory() as name, PushService("127.0.0.1", ANSWER) as service:
        write_account(Path(name), service.url)
        for _ in range(rounds):
            for client, each in found.items():
                each.append(measure(client, Path(name), service.url, pushes, at_once))
    yield middle("CPU per push to Firebase", found["ours"], "µs")
    if "httpx" in found:
        yield middle("CPU per push of httpx", found["httpx"], "µs")
        yield middle("CPU of ours to httpx", ratios(found["ours"], found["httpx"]), "x", most=MOST)
    else:
        yield Absent("httpx, the peer", "pip install httpx")


QUICK = {"pushes": 200, "rounds": 2}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=600)
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", choices=list(CLIENTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.client:
        print(CLIENTS[options.client](Path(options.folder), options.url, options.pushes, options.at_once))
    else:
        print(render([("firebase", list(figures(options.pushes, options.at_once, options.rounds)))]))


if __name__ == "__main__":
    main(sys.argv[1:])
