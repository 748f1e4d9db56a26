"""docker-compose.yml without Docker: its services in network namespaces of their own, and softphones outside of them.

There is a machine with Docker, two containers on its bridge, and phones on its LAN. Addresses, environment, volumes,
published ports and health checks are read from docker-compose.yml, the command from the Dockerfile. What differs from
Docker: there are no images, so the services run what is installed here, as this user.

A namespace lives as long as a process in it, and every process here ends with the one that started it, however that
ends: nothing is left behind. No interface of this machine is touched and no packet leaves the namespaces.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import media_server
import pytest
import yaml
from test_compose import REPOSITORY, substituted

PATIENCE = 150.0
"""Seconds anything may take on a slow machine."""

LAN = 24
"""Bits of the network the phones are in."""

TOOLS = ("baresip", "ip", "iptables", "nsenter", "setpriv", "stdbuf", "unshare")
SEARCHED = os.pathsep.join((media_server.USUAL_PLACES, "/usr/sbin", "/sbin"))
WITH_ITS_MAKER = ("setpriv", "--pdeathsig", "KILL")
"""In front of a command: it is ended when the process that started it is gone."""

VISIT = """
import http.client, socket, ssl, sys
address, trusted = sys.argv[1:]
context = ssl.create_default_context(cafile=trusted)
context.wrap_socket(socket.create_connection((address, 5061), 20), server_hostname=address).close()
page = http.client.HTTPSConnection(address, 8443, timeout=20, context=context)
page.request("GET", "/")
answer = page.getresponse()
print(answer.status, answer.read().decode())
"""
"""A handshake at the port for TLS, and the page at the one for WSS."""

NOTHING: Mapping[str, str] = {}

LIBRARIES = ("lib", "lib64", "lib/*", "local/lib")
MODULES = next((found for part in LIBRARIES for found in Path("/usr").glob(f"{part}/baresip/modules")), None)
"""Of baresip; it has no default of its own."""


def missing() -> str:
    """Why there can be no lab here; empty when there can."""
    if absent := [name for name in TOOLS if shutil.which(name, path=SEARCHED) is None]:
        return f"no {', no '.join(absent)} on this machine"
    if MODULES is None:
        return "no modules of baresip on this machine"
    return "" if os.geteuid() == 0 else "network namespaces are root's"


def wait_for(what: str, found: Callable[[], Any], seen: Callable[[], str], patience: float = PATIENCE) -> Any:
    """What `found` gives as soon as that is something; `seen` is told otherwise."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.02)
    pytest.fail(f"no {what} within {patience} s:\n{seen()}")


class Output:
    """What a process has printed since the last `look_away`, in whatever order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark = 0

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.path.read_text(errors="replace"))

    def look_away(self) -> None:
        self.mark = len(self.text())

    def find(self, pattern: str) -> re.Match[str] | None:
        return re.compile(pattern).search(self.text(), self.mark)

    def wait(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        found: re.Match[str] = wait_for(repr(pattern), lambda: self.find(pattern), self.text, patience)
        return found


class Processes:
    """All that a lab starts; ended together, since FreeSWITCH takes its time."""

    def __init__(self) -> None:
        self._started: list[tuple[subprocess.Popen[Any], signal.Signals]] = []

    def add(self, process: subprocess.Popen[Any], how: signal.Signals) -> None:
        self._started.append((process, how))

    def end(self) -> None:
        for process, how in reversed(self._started):
            process.send_signal(how)
        deadline = time.monotonic() + 10
        for process, _ in self._started:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
            if process.stdin is not None:
                process.stdin.close()


class Namespace:
    """A network namespace without a name: it is gone with its last process."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._environ = os.environ | {"PATH": os.pathsep.join((str(Path(sys.executable).parent), SEARCHED))}
        holder = subprocess.Popen(
            [*WITH_ITS_MAKER, "unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            text=True,
        )
        processes.add(holder, signal.SIGKILL)
        assert holder.stdout is not None
        assert holder.stderr is not None
        with holder.stdout as said, holder.stderr as complaint:
            if not said.readline():
                pytest.skip(f"no network namespaces here: {complaint.read().strip()}")
        self.pid = holder.pid

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def ask(self, command: Sequence[str], environ: Mapping[str, str] = NOTHING, text: str = "") -> tuple[bool, str]:
        """Run it to its end; whether it was content, and what it said."""
        done = subprocess.run(
            self._inside(command),
            input=text,
            env=self._environ | dict(environ),
            timeout=PATIENCE,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode == 0, done.stdout + done.stderr

    def do(self, *command: str, text: str = "") -> None:
        content, said = self.ask(command, text=text)
        assert content, f"{command}: {said}"

    def ip(self, *lines: str) -> None:
        self.do("ip", "-batch", "-", text="\n".join(lines))

    def start(
        self,
        command: Sequence[str],
        output: Path,
        folder: Path,
        environ: Mapping[str, str] = NOTHING,
        how: signal.Signals = signal.SIGTERM,
    ) -> subprocess.Popen[bytes]:
        """`how`: the signal that ends it."""
        with output.open("wb") as file:
            process = subprocess.Popen(
                self._inside([*WITH_ITS_MAKER, *command]),
                cwd=folder,
                env=self._environ | dict(environ),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._processes.add(process, how)
        return process


class Service:
    """One service of docker-compose.yml, started as its container would be."""

    def __init__(self, namespace: Namespace, name: str, described: dict[str, Any], folder: Path) -> None:
        self.namespace = namespace
        self.described = described
        self.output = Output(folder / f"{name}.log")
        self.volumes: dict[str, Path] = {}
        """Path in the container → what stands behind it."""
        for volume in described["volumes"]:
            source, target = volume.split(":")[:2]
            self.volumes[target] = folder / source
            if not source.startswith("."):  # a named volume is Docker's to make
                self.volumes[target].mkdir(exist_ok=True)
        self.environ = {key: self.mapped(value or "") for key, value in described.get("environment", {}).items()}

    def mapped(self, value: str) -> str:
        """Nothing is mounted here: a path on a volume becomes the path of what Docker would mount there."""
        for target, source in self.volumes.items():
            value = value.replace(f"{target}/", f"{source}/")
        return value

    def start(self, command: Sequence[str], folder: Path) -> None:
        self.process = self.namespace.start(command, self.output.path, folder, self.environ)

    def wait_until_healthy(self) -> None:
        kind, *test = self.described["healthcheck"]["test"]
        command = test if kind == "CMD" else ["sh", "-c", *test]

        def healthy() -> bool:
            assert self.process.poll() is None, self.output.text()
            return self.namespace.ask(command, self.environ)[0]

        wait_for(f"health ({command})", healthy, self.output.text)


class Softphone:
    """baresip, driven by its keyboard. What it says is a tone."""

    def __init__(self, namespace: Namespace, user: str, address: str, domain: str, folder: Path) -> None:
        self.address = address
        folder.mkdir()
        with wave.open(str(folder / "voice.wav"), "wb") as voice:
            voice.setparams((1, 2, 8000, 0, "NONE", ""))
            voice.writeframes((b"\x00\x20" * 10 + b"\x00\xe0" * 10) * 400 * 60)  # 400 Hz, 60 s
        modules = "".join(f"module {name}.so\n" for name in ("stdio", "g711", "aufile", "aubridge"))
        modules += "module_tmp uuid.so\nmodule_tmp account.so\nmodule_app menu.so\n"
        # aubridge without a second end is a loudspeaker nobody hears
        audio = f"audio_source aufile,{folder}/voice.wav\naudio_player aubridge,nobody\naudio_alert aubridge,nobody\n"
        (folder / "config").write_text(f"sip_listen {address}:5060\nmodule_path {MODULES}\n{audio}{modules}")
        (folder / "accounts").write_text(f"<sip:{user}@{domain};transport=udp>;regint=60\n")
        (folder / "contacts").touch()
        self.output = Output(folder / "output")
        command = ("stdbuf", "--output=L", "baresip", "-4", "-f", str(folder))
        self._process = namespace.start(command, self.output.path, folder, how=signal.SIGKILL)

    def type(self, keys: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(keys.encode())
        self._process.stdin.flush()

    def wait(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        return self.output.wait(pattern, patience)


class Lab:
    """The services of docker-compose.yml, up and healthy; phones come when they are asked for."""

    def __init__(self, folder: Path, environ: dict[str, str], processes: Processes) -> None:
        """`environ`: what the operator writes into .env."""
        self.address = environ["SIP_ADVERTISE"]
        self.folder = folder
        self._processes = processes
        self._cables = 0
        for name in ("config", "flows"):
            shutil.copytree(REPOSITORY / name, folder / name)
        environ = {"ESL_PASSWORD": secrets.token_hex(16), **environ}
        self.compose = yaml.safe_load(substituted((REPOSITORY / "docker-compose.yml").read_text(), environ))
        self._build_machine()
        self.orchestrator = self._service("orchestrator")
        self.freeswitch = self._service("freeswitch")
        self._make_certificate()
        self._start_orchestrator()
        self._start_freeswitch()

    def _build_machine(self) -> None:
        """The machine Docker runs on: an address in the LAN, and what Docker does for a network."""
        (pool,) = self.compose["networks"]["telephony"]["ipam"]["config"]
        self.network = ip_network(pool["subnet"])
        self.gateway = str(self.network[1])
        self.machine = Namespace(self._processes)
        self.machine.ip(
            "link set lo up",
            "link add telephony type bridge",
            f"addr add {self.gateway}/{self.network.prefixlen} dev telephony",
            "link set telephony up",
            "link add lan type bridge",
            f"addr add {self.address}/{LAN} dev lan",
            "link set lan up",
        )
        self.machine.do("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self._nat(f"POSTROUTING -s {self.network} ! -o telephony -j MASQUERADE")

    def _nat(self, rule: str) -> None:
        self.machine.do("iptables", "--table", "nat", "--append", *rule.split())

    def _plugged(self, bridge: str, address: str, bits: int, gateway: str | None) -> Namespace:
        """Another machine, on one of the two bridges."""
        other = Namespace(self._processes)
        self._cables += 1
        cable = f"{bridge}{self._cables}"
        self.machine.ip(
            f"link add {cable} type veth peer name eth0 netns {other.pid}", f"link set {cable} master {bridge} up"
        )
        route = [f"route add default via {gateway}"] if gateway else []
        other.ip("link set lo up", f"addr add {address}/{bits} dev eth0", "link set eth0 up", *route)
        return other

    def _service(self, name: str) -> Service:
        described = self.compose["services"][name]
        address, bits = described["networks"]["telephony"]["ipv4_address"], self.network.prefixlen
        for published in described["ports"]:
            outside, _, transport = published.partition("/")
            if outside.startswith("127."):
                continue  # for this machine alone: not for phones
            ports, inside = outside.split(":")
            assert ports == inside, published
            self._nat(
                f"PREROUTING -p {transport or 'tcp'} -m addrtype --dst-type LOCAL"
                f" --dport {ports.replace('-', ':')} -j DNAT --to-destination {address}"
            )
        return Service(self._plugged("telephony", address, bits, self.gateway), name, described, self.folder)

    def _make_certificate(self) -> None:
        described = self.compose["services"]["certificate"]
        service = Service(self.machine, "certificate", described, self.folder)
        arguments = [service.mapped(argument) for argument in described["command"]]
        self.machine.do(sys.executable, "-m", "orchestrator", *arguments)

    def _start_orchestrator(self) -> None:
        dockerfile = (REPOSITORY / "Dockerfile").read_text()
        (workdir,) = set(re.findall(r"^WORKDIR (/srv/.*)$", dockerfile, re.MULTILINE))
        (entry,) = re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)
        (arguments,) = re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)
        assert json.loads(entry) == ["orchestrator"]
        here = self.folder / "srv"
        for target, source in self.orchestrator.volumes.items():
            if target.startswith(workdir):
                place = here / Path(target).relative_to(workdir)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(source)
        self.orchestrator.start([sys.executable, "-m", "orchestrator", *json.loads(arguments)], here)

    def _start_freeswitch(self) -> None:
        assert media_server.BINARY is not None
        scratch = self.folder / "freeswitch"
        scratch.mkdir()
        names = ("log", "db", "run", "storage", "temp", "recordings", "cache", "certs")
        places = [item for name in names for item in (f"-{name}", str(scratch))]
        conf = str(self.freeswitch.volumes["/etc/freeswitch"])
        command = [media_server.BINARY, "-nf", "-nc", "-np", "-nonat", "-nonatmap", "-conf", conf, *places]
        self.freeswitch.start(command, scratch)

    def wait_until_ready(self) -> None:
        self.freeswitch.wait_until_healthy()
        self.orchestrator.wait_until_healthy()
        wait_for("readiness", lambda: '"ready"' in self.admin("readyz"), self.orchestrator.output.text)

    def admin(self, path: str) -> str:
        """What the admin interface says, asked on the machine with Docker as docs/compose.md does."""
        listen = self.orchestrator.described["networks"]["telephony"]["ipv4_address"]
        code = f"import urllib.request as r; print(r.urlopen('http://{listen}:8080/{path}', timeout=2).read().decode())"
        return self.machine.ask([sys.executable, "-c", code])[1]

    def visit(self, number: int) -> str:
        """The answer to a browser with the `number`-th address of the LAN that opens the page of docs/compose.md."""
        here = self._plugged("lan", self._lan_address(number), LAN, None)
        trusted = self.orchestrator.mapped("/var/lib/orchestrator/tls/certificate.pem")
        return here.ask([sys.executable, "-c", VISIT, self.address, trusted])[1]

    def reload(self) -> None:
        self.orchestrator.process.send_signal(signal.SIGHUP)

    def _lan_address(self, number: int) -> str:
        return str(ip_network(f"{self.address}/{LAN}", strict=False)[number])

    def phone(self, user: str, number: int) -> Softphone:
        """A softphone with the `number`-th address of the LAN, registered at the machine's."""
        address = self._lan_address(number)
        phone = Softphone(self._plugged("lan", address, LAN, None), user, address, self.address, self.folder / user)
        phone.wait("registered successfully")
        return phone
