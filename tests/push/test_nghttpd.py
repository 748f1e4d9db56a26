"""Pushes to an HTTP/2 server that is not ours: nghttpd (Debian's package nghttp2-server), which serves files."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path

import gevent
import pytest

pytest.importorskip("h2", reason="the extra `push` is not installed")

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from gevent.pool import Pool
from tls_files import write_authority, write_pair

from orchestrator.push.apns import Apns, ApnsAccount
from orchestrator.settings.values import Address
from orchestrator.sip.push import Push, PushAddress

NGHTTPD = shutil.which("nghttpd")
TOKEN = "ab" * 32


@pytest.mark.skipif(NGHTTPD is None, reason="nghttpd is not installed (nghttp2-server)")
def test_five_hundred_pushes_over_one_connection_with_ten_at_a_time(tmp_path: Path) -> None:
    write_authority(tmp_path / "ca.pem")
    write_pair(tmp_path, "127.0.0.1")
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "k.p8").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    page = tmp_path / "www/3/device" / TOKEN
    page.parent.mkdir(parents=True)
    page.touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Address("127.0.0.1", port)
    account = ApnsAccount(here, here, tmp_path / "k.p8", "ABC123DEFG", "DEF123GHIJ", ca=tmp_path / "ca.pem")
    apns = Apns(account)

    def push(token: str) -> str:
        address = PushAddress("apns", "", "", app="com.example.app", tokens={"voip": token})
        return apns.send(Push("apns", address, "call", 20.0, "sip:bob@example.com", data={"text": "x" * 500})).outcome

    command = [str(NGHTTPD), "-d", "www", "-m", "10", str(port), "key.pem", "certificate.pem"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            assert push("nobody") == "failed", "404"
            assert Counter(Pool(100).map(push, [TOKEN] * 500)) == {"sent": 500}
            assert apns.clients[False].connections == 1
        finally:
            apns.stop()
            server.terminate()


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            gevent.sleep(0.05)
    pytest.fail("nghttpd did not start")
