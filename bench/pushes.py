"""Pushes to Apple's service: CPU and rate, beside httpx over HTTP/2 on the same server in the same run.

The server is nghttpd (Debian's nghttp2-server), which answers a push with 200 as Apple does. Each client runs in a
process of its own, one after the other, several rounds; only its own CPU time counts. Ours goes all the way from the
job of the core to its answer: queue, circuit, payload, token, HTTP/2, TLS. httpx is given headers and payload that are
made already.

    python -m bench.pushes [--pushes 1000] [--at-once 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, process_time, sleep
from typing import Any

from bench.children import ends_with_us
from bench.figures import Absent, Figure, Skipped, middle, ratios, render

TOKEN = "ab" * 32
TEAM = "DEF123GHIJ"
DATA = {"call": "3848276298220188511@atlanta.example.com", "from": "sip:alice@example.com", "display_name": "Alice"}
STREAMS = 1_000
"""Requests at one time that the server allows, as Apple does."""
MOST = 0.7
"""Of httpx's CPU."""


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """nghttpd with a certificate of its own, and the port it listens on."""
    found = shutil.which("nghttpd")
    if found is None:
        raise Skipped("nghttpd is not installed (Debian's nghttp2-server)")
    _write_files(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [found, "-d", str(folder / "www"), "-m", str(STREAMS), str(port), "key.pem", "certificate.pem"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, preexec_fn=ends_with_us())
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _write_files(folder: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from orchestrator.cli.certificate import self_signed

    certificate, key = self_signed(["127.0.0.1"], 2, datetime.now(UTC))
    (folder / "certificate.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    made = ec.generate_private_key(ec.SECP256R1())
    (folder / "AuthKey.p8").write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    page = folder / "www/3/device" / TOKEN
    page.parent.mkdir(parents=True)
    page.touch()


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            sleep(0.1)
    raise Skipped("nghttpd did not start")


# --- the two clients, each in its own process -------------------------------------------------------------------------


def ours(folder: Path, port: int, pushes: int, at_once: int) -> dict[str, float]:
    from gevent import monkey

    monkey.patch_all()
    import gevent
    from gevent.event import Event

    from orchestrator.push.supervisor import Pushes
    from orchestrator.settings import read_settings
    from orchestrator.sip.push import Push, PushAddress

    entry = f"{{key: {folder}/AuthKey.p8, key_id: ABC123DEFG, team: {TEAM}, ca: {folder}/certificate.pem,"
    text = f"push: {{services: {{apns: {entry} host: '127.0.0.1:{port}', concurrency: {at_once}}}}}}}"
    address = PushAddress("apns", f"{TEAM}.app", TOKEN, team=TEAM, app="com.example.app", tokens={"voip": TOKEN})
    outcomes: list[str] = []
    done = Event()

    def answer(job: int, pushed: Any) -> None:
        outcomes.append(pushed.outcome)
        if len(outcomes) == wanted:
            done.set()

    services = Pushes(read_settings("bench", text, {}).push.services.values(), answer)
    services.start()

    def send(count: int) -> None:
        nonlocal wanted
        outcomes.clear()
        done.clear()
        wanted = count
        for job in range(count):
            services.submit(job, Push("apns", address, "call", 20.0, "sip:bob@example.com", collapse="c", data=DATA))
        done.wait()

    wanted = 0
    send(at_once)
    gevent.sleep(0.1)
    began, used = monotonic(), process_time()
    send(pushes)
    measured = {"cpu": process_time() - used, "seconds": monotonic() - began, "sent": outcomes.count("sent")}
    services.close()
    return measured


def httpx(folder: Path, port: int, pushes: int, at_once: int) -> dict[str, float]:
    import asyncio
    import ssl

    import httpx

    headers = {
        "apns-push-type": "voip",
        "apns-topic": "com.example.app.voip",
        "apns-priority": "10",
        "apns-collapse-id": "c",
        "authorization": "bearer " + "x" * 180,
    }
    body = json.dumps({"aps": {}, "kind": "call", "aor": "sip:bob@example.com", **DATA}).encode()
    url = f"https://127.0.0.1:{port}/3/device/{TOKEN}"

    async def run() -> dict[str, float]:
        context = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(http2=True, http1=False, verify=context, limits=limits, timeout=60) as client:
            sent = 0

            async def worker(numbers: Iterator[int]) -> None:
                nonlocal sent
                for number in numbers:
                    own = {"apns-id": f"{number:036d}", "apns-expiration": str(1_700_000_000 + number // 1000)}
                    response = await client.post(url, headers=headers | own, content=body)
                    sent += response.status_code == 200

            await worker(iter(range(at_once)))
            began, used, sent, numbers = monotonic(), process_time(), 0, iter(range(pushes))
            await asyncio.gather(*(worker(numbers) for _ in range(at_once)))
            return {"cpu": process_time() - used, "seconds": monotonic() - began, "sent": sent}

    return asyncio.run(run())


CLIENTS = {"ours": ours, "httpx": httpx}


# --- the run ----------------------------------------------------------------------------------------------------------


def _measure(client: str, folder: Path, port: int, pushes: int, at_once: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.pushes", "--client", client, "--folder", str(folder), "--port", str(port)]
    command += ["--pushes", str(pushes), "--at-once", str(at_once)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    measured: dict[str, float] = json.loads(output)
    if measured["sent"] != pushes:
        raise RuntimeError(f"{client}: {measured['sent']} of {pushes} pushes were taken")
    return measured


def figures(pushes: int = 1_000, at_once: int = 20, rounds: int = 3) -> Iterator[Figure | Absent]:
    """CPU for each push and the best rate; the ratio to httpx where that is installed. Raises Skipped."""
    if not find_spec("h2"):
        raise Skipped("the extra `push` is not installed")
    theirs = find_spec("httpx") and find_spec("sniffio")  # without sniffio httpcore looks for it with each request
    clients = [name for name in CLIENTS if name == "ours" or theirs]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in clients}
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as port:
        for _ in range(rounds):
            for client in clients:
                runs[client].append(_measure(client, Path(name), port, pushes, at_once))
    cpu = {client: [run["cpu"] / pushes * 1e6 for run in found] for client, found in runs.items()}
    yield middle("CPU per push to Apple", cpu["ours"], "µs")
    yield middle("pushes to Apple", (pushes / run["seconds"] for run in runs["ours"]), "a second")
    if "httpx" in cpu:
        yield middle("CPU per push of httpx", cpu["httpx"], "µs")
        yield middle("CPU of ours to httpx", ratios(cpu["ours"], cpu["httpx"]), "x", most=MOST)
    else:
        yield Absent("httpx with HTTP/2, the peer", "pip install 'httpx[http2]' sniffio")


QUICK = {"pushes": 300, "rounds": 2}


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    if options.client:
        client = CLIENTS[options.client]
        print(json.dumps(client(Path(options.folder), options.port, options.pushes, options.at_once)))
    else:
        print(render([("pushes", list(figures(options.pushes, options.at_once, options.rounds)))]))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=1_000)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", choices=list(CLIENTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
