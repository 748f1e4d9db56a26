"""TLS for programs that do not speak it (Debian's SIPp): octets of each connection are passed on, enciphered or plain.

    python -m bench.tls_tunnel in  CERTIFICATE KEY HOST:PORT HOST:PORT     takes TLS, passes on plain octets
    python -m bench.tls_tunnel out CA HOST:PORT HOST:PORT                  takes plain octets, passes on TLS

The first address is listened on, the second connected to. A line `ready` on stdout says when.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.children import ends_with_us


def callee_behind(folder: Path, contact: str) -> Path:
    """SIPp's scenario of a callee behind a tunnel: its Contact is where the tunnel takes connections."""
    scenario = folder / "callee.xml"
    text = (Path(__file__).parent / "sipp" / "uas.xml").read_text()
    scenario.write_text(text.replace("[local_ip]:[local_port];transport=[transport]", contact))
    return scenario


@contextmanager
def tunnel(*arguments: str) -> Iterator[None]:
    """One that runs meanwhile, in a process of its own; the arguments are those of the command."""
    command = [sys.executable, "-m", "bench.tls_tunnel", *arguments]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, preexec_fn=ends_with_us()) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError("the tunnel does not start")
            yield
        finally:
            process.terminate()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while octets := await reader.read(65_536):
            writer.write(octets)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def _serve(here: str, there: str, taking: ssl.SSLContext | None, giving: ssl.SSLContext | None) -> None:
    host, port = _address(there)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection(host, port, ssl=giving)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, onward[1]), _pass_on(onward[0], writer))

    server = await asyncio.start_server(connected, *_address(here), ssl=taking)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


def main(direction: str, *arguments: str) -> None:
    """Serve until somebody ends it."""
    if direction == "in":
        certificate, key, here, there = arguments
        taking = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        taking.load_cert_chain(certificate, key)
        asyncio.run(_serve(here, there, taking, None))
    else:
        ca, here, there = arguments
        asyncio.run(_serve(here, there, None, ssl.create_default_context(cafile=ca)))


if __name__ == "__main__":
    main(*sys.argv[1:])
