"""What the server sends to Homer, taken by receivers that others have written: sngrep, and Kamailio's sipcapture."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until

RELAY = """flowlang: 1
flows:
  all:
    on: invite
    do:
      - log: 'for ${call.to.user}'
      - relay: registered
"""
MODULES = next((path for path in Path("/usr").glob("lib*/**/kamailio/modules") if path.is_dir()), None)
KAMAILIO = shutil.which("kamailio", path="/usr/sbin:/usr/bin:/sbin:/bin")
SNGREP = shutil.which("sngrep")

CAPTURE = """debug=1
log_stderror=yes
children=1
mpath="{modules}/"
loadmodule "pv.so"
loadmodule "db_text.so"
loadmodule "sipcapture.so"
modparam("db_text", "db_mode", 1)
modparam("sipcapture", "db_url", "text://{folder}")
modparam("sipcapture", "capture_on", 1)
modparam("sipcapture", "hep_capture_on", 1)
modparam("sipcapture", "table_name", "sip_capture")
listen=udp:127.0.0.1:{port}
request_route {{ sip_capture("sip_capture"); drop; }}
onreply_route {{ sip_capture("sip_capture"); drop; }}
"""
SIP_COLUMNS = """\
date:int micro_ts:int method reply_reason ruri ruri_user ruri_domain from_user from_domain from_tag
to_user to_domain to_tag pid_user contact_user auth_user callid callid_aleg via_1 via_1_branch cseq diversion reason
content_type auth user_agent source_ip source_port:int destination_ip destination_port:int contact_ip contact_port:int
originator_ip originator_port:int expires:int correlation_id custom_field1 custom_field2
custom_field3 proto:int family:int rtp_stat type:int node msg"""
LOG_COLUMNS = """\
date:int micro_ts:int correlation_id source_ip source_port:int destination_ip destination_port:int
proto:int family:int type:int node msg"""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def udp_socket(port: int) -> str:
    """The kernel's line about it, '' as long as there is none."""
    lines = Path("/proc/net/udp").read_text().splitlines()
    return next((line for line in lines if f":{port:04X} 0" in line), "")


def table(path: Path, columns: str) -> None:
    parts = (column.partition(":") for column in columns.split())
    path.write_text(" ".join(["id(int,auto)", *(f"{name}({kind or 'string'},null)" for name, _, kind in parts)]) + "\n")


def rows(path: Path) -> list[dict[str, str]]:
    """Of a table of db_text: values between colons, those in values behind a backslash."""
    head, *lines = path.read_text().splitlines()
    names = [column.partition("(")[0] for column in head.split()]
    found = []
    for line in lines:
        values = line.replace("\\:", "\0").split(":")
        found.append(dict(zip(names, (value.replace("\0", ":") for value in values), strict=True)))
    return found


def children(pid: int) -> list[int]:
    """Of a process, their children as well."""
    found = [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]
    return [each for child in found for each in (child, *children(child))]


def idle(pid: int, looks: int = 10) -> bool:
    """Whether a process and its children wait for input, each time of several in a row."""
    states = (
        Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0]
        for _ in range(looks)
        for each in (pid, *children(pid))
    )
    return all(state == "S" for state in states)


class Receivers:
    """Programs that listen on UDP ports. Kamailio writes its tables when it ends."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], port: int) -> int:
        self._running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        assert wait_until(lambda: udp_socket(port), 30), command[0]
        return port

    def stop(self) -> None:
        """Kamailio has to be idle: a child that is ended while it works may hold a lock for ever."""
        for process in self._running:
            assert wait_until(partial(idle, process.pid), 30)
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            process.wait(30)
        self._running.clear()


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    made = Receivers()
    yield made
    made.stop()


def started(receivers: Receivers, folder: Path) -> tuple[list[int], Path]:
    """The receivers that are installed; their ports, and sngrep's file."""
    capture, ports = folder / "out.pcap", []
    if SNGREP:
        port = free_port()
        ports.append(
            receivers.start([SNGREP, "-N", "-q", "-F", "-L", f"udp:127.0.0.1:{port}", "-O", str(capture)], port)
        )
    if KAMAILIO and MODULES:
        port = free_port()
        table(folder / "sip_capture", SIP_COLUMNS)
        table(folder / "logs_capture", LOG_COLUMNS)
        (folder / "version").write_text("table_name(string) table_version(int)\n")
        config = folder / "kamailio.cfg"
        config.write_text(CAPTURE.format(modules=MODULES, folder=folder, port=port))
        places = [
            word for option in "wPY" for word in (f"-{option}", str(folder / option if option == "P" else folder))
        ]
        ports.append(receivers.start([KAMAILIO, "-f", str(config), "-DD", "-E", *places], port))
    return ports, capture


class Tee:
    """Takes the packets of the server and passes them on to all receivers."""

    def __init__(self, ports: list[int]) -> None:
        self.packets: list[bytes] = []
        self._ports = ports
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def has(self, *beginnings: bytes) -> bool:
        """Whether a message that begins so has come, of each."""
        try:
            while True:
                packet = self._socket.recv(65_536)
                self.packets.append(packet)
                for port in self._ports:
                    self._socket.sendto(packet, ("127.0.0.1", port))
        except BlockingIOError:
            return all(any(beginning in packet for packet in self.packets) for beginning in beginnings)

    def close(self) -> None:
        self._socket.close()


@pytest.mark.skipif(not (SNGREP or (KAMAILIO and MODULES)), reason="neither sngrep nor kamailio is installed (Debian)")
def test_sngrep_and_kamailio_take_a_call(serve: Any, tmp_path: Any, receivers: Receivers) -> None:
    flow = tmp_path / "relay.flow.yaml"
    flow.write_text(RELAY)
    ports, capture = started(receivers, tmp_path)
    tee = Tee(ports)
    hep = {"address": f"udp:127.0.0.1:{tee.port}", "capture_id": 2001, "node": "n1"}
    server = serve(flows=[str(flow)], services={"hep": hep})
    alice, bob = (SocketPhone(f"{name}@example.com", server.sip) for name in ("alice", "bob"))
    bob.on_invite = PhoneCall.answer
    try:
        assert wait_until(lambda: [bob.register()] and tee.has(b"REGISTER sip:"), 60)
        call = alice.invite("bob@example.com")
        assert wait_until(lambda: call.state == "answered", 30)
        call.hangup()
        assert wait_until(lambda: tee.has(b"INVITE sip:", b"ACK sip:", b"BYE sip:", b"log: for bob"), 30)
        addresses = {"alice": alice.wire.address, "bob": bob.wire.address, "us": server.sip}
        if SNGREP:
            assert wait_until(lambda: tee.has() and b"BYE sip:" in capture.read_bytes(), 30)
            octets = capture.read_bytes()
            for source, destination in (("alice", "us"), ("us", "bob")):
                ends = b"".join(addresses[end][1].to_bytes(2) for end in (source, destination))
                assert any(b"INVITE sip:" in part[:200] for part in octets.split(ends)[1:]), "a datagram between them"
        if KAMAILIO and MODULES:
            assert wait_until(lambda: tee.has() and ":00000000 00:" in udp_socket(ports[-1]), 30), "all of it is read"
            receivers.stop()
            assert_rows(tmp_path, call.call_id.decode(), {name: str(at[1]) for name, at in addresses.items()})
    finally:
        for each in (alice, bob, tee):
            each.close()


def assert_rows(folder: Path, call_id: str, port: dict[str, str]) -> None:
    """What Kamailio has written down."""
    sip = [row for row in rows(folder / "sip_capture") if row["callid"] == call_id]
    ways = {(row["source_port"], row["destination_port"]) for row in sip if row["method"] == "INVITE"}
    assert ways == {(port["alice"], port["us"]), (port["us"], port["bob"])}
    assert {row["correlation_id"] for row in sip} == {call_id}
    assert {"INVITE", "100", "200", "ACK", "BYE"} <= {row["method"] for row in sip}
    lines = rows(folder / "logs_capture")
    assert {row["correlation_id"] for row in lines} == {call_id}
    assert any("log: for bob" in row["msg"] for row in lines)
