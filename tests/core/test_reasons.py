"""Errors of sockets and of client libraries, as a person reads them."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import urllib3

from orchestrator.errors import reason_of


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def web(url: str) -> str:
    """What a client library says of this address."""
    with pytest.raises(urllib3.exceptions.HTTPError) as raised:
        urllib3.PoolManager(1, retries=False, timeout=0.2).request("POST", url, body=b"x")
    return reason_of(raised.value)


def peer(answer: bytes | None) -> str:
    """The port of a peer that says this and leaves, or nothing and stays (None)."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        made, _ = server.accept()
        with made, server:
            made.recv(1000)
            while answer is None and made.recv(1000):
                pass
            made.sendall(answer or b"")

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}/token-1234"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (OSError(28, "No space left on device", "/var/spool"), "no space left on device"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (TimeoutError("timed out"), "it does not answer in time"),
        (TimeoutError(), "it does not answer in time"),
        (TimeoutError("no TLS handshake"), "no TLS handshake"),
        (ConnectionResetError("the receiver has closed the connection"), "the receiver has closed the connection"),
        (EOFError(), "EOFError"),
    ],
)
def test_an_error_of_the_system(error: Exception, told: str) -> None:
    assert reason_of(error) == told


def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(UnicodeError) as raised:
        "a..b".encode("idna")
    assert reason_of(raised.value) == "no such name can be looked up"


def test_a_web_peer() -> None:
    assert web(f"http://127.0.0.1:{closed_port()}/token-1234") == "connection refused"
    assert web(f"https://127.0.0.1:{closed_port()}/token-1234") == "connection refused"
    assert web(f"http://{peer(None)}") == "it does not answer in time"
    assert web(f"http://{peer(b'')}") == "Remote end closed connection without response"
    assert web(f"https://{peer(b'garbage')}") in ("TLS: wrong version number", "TLS: record layer failure")


def test_a_certificate_that_nobody_vouches_for() -> None:
    refused = ssl.SSLCertVerificationError(1, "[SSL: X] certificate verify failed")
    refused.reason, refused.verify_message = "CERTIFICATE_VERIFY_FAILED", "self-signed certificate"
    assert reason_of(refused) == "TLS: certificate verify failed: self-signed certificate"
