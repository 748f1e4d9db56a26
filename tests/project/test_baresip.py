"""Debian's baresip as the phone: it registers with a password, calls another one, hangs up and sends it a text, with
default settings.

Its libre knows MD5 only, and gives up when any other algorithm is offered as well: `sip.digest` has its default here.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sip.parser import parse_message

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed (Debian: baresip-core)"),
]
WAIT = 60.0
"""Seconds; a loaded machine lets baresip begin late."""

FLOWS = """\
flowlang: 1
users: {local: {file: users.yaml}}
flows:
  registration:
    on: register
    do:
      - auth: {realm: example.com, users: local}
      - register
"""
CONFIG = """\
sip: {listen: ['udp:127.0.0.1:0'], domains: [example.com], trust: []}
location: 'memory:'
flows: [flows]
log: {level: debug}
admin: {listen: '127.0.0.1:0'}
"""
PHONE = """\
sip_listen 127.0.0.1:0
net_interface 127.0.0.1
audio_player aubridge,x
audio_source aubridge,x
audio_alert aubridge,x
module_path %s
module g711.so
module aubridge.so
module_tmp uuid.so
module_tmp account.so
module_app contact.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:%d
"""


def modules() -> str:
    for folder in (*Path("/usr/lib").glob("**/baresip/modules"), *Path("/usr/local/lib").glob("**/baresip/modules")):
        if (folder / "ctrl_tcp.so").exists():
            return str(folder)
    pytest.skip("baresip has no module ctrl_tcp")


def wait_for(look: Callable[[], Any], what: str, log: Path | None = None) -> Any:
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    said = log.read_text() if log is not None else ""
    raise AssertionError(f"not within {WAIT:g} s: {what} {said}")


@contextlib.contextmanager
def running(*command: str, folder: Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """SIP port and log of an orchestrator with two users."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "registration.flow.yaml").write_text(FLOWS)
    (tmp_path / "users.yaml").write_text("alice: wonder\nbob: builder\n")
    (tmp_path / "config.yml").write_text(CONFIG)
    log = tmp_path / "log.txt"
    command = (sys.executable, "-m", "orchestrator", "run", "-c", "config.yml")
    with running(*command, folder=tmp_path, output=log):
        ready = wait_for(lambda: re.search(r"^ready udp:127.0.0.1:(\d+) ", log.read_text(), re.MULTILINE), "ready", log)
        yield int(ready[1]), log


class Baresip:
    """One baresip, driven by its control port: JSON in netstrings."""

    def __init__(self, port: int) -> None:
        def connect() -> socket.socket | None:
            try:
                return socket.create_connection(("127.0.0.1", port))
            except OSError:
                return None

        self._socket = wait_for(connect, f"baresip listens on {port}")
        self._socket.settimeout(WAIT)
        self._read = b""

    def command(self, name: str, params: str = "") -> None:
        data = json.dumps({"command": name, "params": params}).encode()
        self._socket.sendall(b"%d:%b," % (len(data), data))

    def event(self, *kinds: str) -> str:
        """The next event that is one of these."""
        while True:
            length, colon, rest = self._read.partition(b":")
            if colon and len(rest) > int(length):
                message, self._read = json.loads(rest[: int(length)]), rest[int(length) + 1 :]
                if message.get("type") in kinds:
                    return str(message["type"])
                continue
            data = self._socket.recv(65536)
            assert data, "baresip has closed its control port"
            self._read += data

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def phones(server: tuple[int, Path], tmp_path: Path) -> Iterator[dict[str, Baresip]]:
    with contextlib.ExitStack() as stack:
        found = {}
        for name, password in (("alice", "wonder"), ("bob", "builder")):
            folder = tmp_path / name
            folder.mkdir()
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            (folder / "config").write_text(PHONE % (modules(), port))
            account = f'<sip:{name}@example.com>;auth_user={name};auth_pass={password};outbound="sip:127.0.0.1:%d"'
            (folder / "accounts").write_text(account % server[0] + ";regint=60\n")
            (folder / "contacts").write_text('"Bob" <sip:bob@example.com>\n')
            stack.enter_context(running("baresip", "-f", str(folder), folder=folder, output=folder / "out.txt"))
            found[name] = Baresip(port)
            stack.callback(found[name].close)
        yield found


def test_what_is_offered_by_default_is_md5_alone(server: tuple[int, Path]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(WAIT)
        here = f"127.0.0.1:{phone.getsockname()[1]}"
        lines = [
            "REGISTER sip:example.com SIP/2.0", f"Via: SIP/2.0/UDP {here};rport;branch=z9hG4bKa", "Max-Forwards: 70",
            "From: <sip:alice@example.com>;tag=a", "To: <sip:alice@example.com>", "Call-ID: a", "CSeq: 1 REGISTER",
            f"Contact: <sip:alice@{here}>", "Content-Length: 0", "", "",
        ]  # fmt: skip
        phone.sendto("\r\n".join(lines).encode(), ("127.0.0.1", server[0]))
        answer = parse_message(phone.recv(65536))
    [challenge] = answer.get_all(b"www-authenticate")
    assert b"algorithm=MD5" in challenge


def test_it_registers_with_a_password_calls_holds_sends_a_message_and_hangs_up(
    phones: dict[str, Baresip], server: tuple[int, Path]
) -> None:
    alice, bob, log = phones["alice"], phones["bob"], server[1]
    for name in phones:
        wait_for(lambda name=name: f"aor={name}@example.com" in log.read_text(), f"{name} is registered", log)
    alice.command("message", "hello bob")
    taken = r'sip_sent peer=(\S+) .*first="MESSAGE sip:bob(?:.*\n)*?.*sip_received peer=\1 .*first="SIP/2\.0 200 OK"'
    wait_for(lambda: re.search(taken, log.read_text()), "bob takes alice's message")
    alice.command("dial", "sip:bob@example.com")
    bob.event("CALL_INCOMING")
    bob.command("accept")
    for phone in (alice, bob):
        phone.event("CALL_ESTABLISHED")
    alice.command("hold")
    bob.event("CALL_REMOTE_SDP")  # her re-INVITE has come through us
    bob.command("hangup")
    alice.event("CALL_CLOSED")
    wait_for(lambda: "call_ended" in log.read_text(), "the call has ended")
    assert "ERROR" not in log.read_text()
