"""Servers under test: processes of their own on a core of their own, whose CPU time is read from the kernel.

`Orchestrator` is `orchestrator run` as its user starts it, `Kamailio` a minimal configuration with the same job. CPU
time is the kernel's clock of each process of a server (nanoseconds; utime and stime are sampled at ticks, too coarse
for a round of a second), added up over the processes.

A server gets the first core, whoever loads it the last one (`on_core`): with both on any core the figure is about the
scheduler.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from bench.children import ends_with_us
from bench.figures import Skipped
from orchestrator.cli.certificate import self_signed

ROOT = Path(__file__).parents[1]
STARTS_WITHIN = 150.0
"""Seconds a server may take until it serves."""
STOPS_WITHIN = 5.0
"""Seconds after SIGTERM before a server is killed; calls left over are not waited for."""

HOST = "127.0.0.23"
"""Loopback address of servers and phones: other traffic of this machine does not come here by mistake."""

BEHIND = "127.0.0.24"
"""Of the tunnels that lend TLS to programs without it."""

PROFILE = "BENCH_PROFILE"
"""Environment: `folder/name` where py-spy writes `name-<n>.svg` for each of our servers. See `python -m bench`."""

_CPU_CLOCK = 2
"""Linux: in a clock id made of a process id, the clock that counts its CPU time (CPUCLOCK_SCHED)."""


def free_port(kind: int = socket.SOCK_DGRAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """Run this process, and what it starts meanwhile, on one core (0 the first, -1 the last one we may use)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Poll until `condition()` holds. Raises TimeoutError naming `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


def udp_bound(host: str, port: int, table: str = "udp") -> bool:
    """Whether a process of this machine has bound this address (Linux)."""
    octets = socket.inet_aton(host)[::-1].hex().upper()
    rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    return any(row.split()[1] == f"{octets}:{port:04X}" for row in rows)


def tcp_bound(host: str, port: int) -> bool:
    return udp_bound(host, port, "tcp")


COMPILES_ONCE = {"PYTHONDONTWRITEBYTECODE": ""}
"""Where the environment forbids it, each start would compile every module anew, which no installed server does."""


class Server:
    """A server process and its children; a context manager that ends it by its process id."""

    name = ""
    port = 0
    at_our_death = signal.SIGTERM
    """What it gets when the benchmark is killed. SIGTERM: a server that has children ends them."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = folder / f"{self.name}.log"
        with self._log.open("w") as log, on_core(0):
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **COMPILES_ONCE, **(environment or {})},
                stdout=log,
                stderr=log,
                preexec_fn=ends_with_us(self.at_our_death),
            )

    @property
    def processes(self) -> list[int]:
        """Process ids: ours, its children, theirs."""
        found = [self.process.pid]
        for pid in found:
            found += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return found

    def cpu(self) -> float:
        """Seconds of CPU time used so far by all its processes."""
        return sum(time.clock_gettime(~pid << 3 | _CPU_CLOCK) for pid in self.processes)

    def memory(self) -> int:
        """Octets resident, what its processes share counted once."""
        rows = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes]
        return sum(int(re.findall(r"^Pss: *(\d+) kB", row, re.MULTILINE)[0]) for row in rows) * 1024

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_serving(self, serves: Any) -> None:
        """Raises RuntimeError with its log when it ended instead."""

        def settled() -> bool:
            return self.process.poll() is not None or serves()

        try:
            wait_until(settled, STARTS_WITHIN, f"{self.name} does not start")
        except TimeoutError:
            print(self.log(), file=sys.stderr)
            self.stop()
            raise
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended at once:\n{self.log()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOPS_WITHIN)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a certificate of its own making for `HOST`, and its key."""
    paths = folder / "certificate.pem", folder / "key.pem"
    if not paths[0].exists():
        for path, octets in zip(paths, self_signed([HOST, BEHIND], 30, datetime.now(UTC)), strict=True):
            path.write_bytes(octets)
    return paths


def listening(transport: str, port: int) -> list[str]:
    """A transport, and UDP at the same port: callees register there."""
    return [f"{name}:{HOST}:{port}" for name in dict.fromkeys((transport, "udp"))]


class Orchestrator(Server):
    """`orchestrator run` with registrations in memory; `flows` are flow files, `sip` more of that section, `more`
    other sections."""

    name = "orchestrator"
    at_our_death = signal.SIGKILL  # on SIGTERM it waits for calls that nobody ends any more

    def __init__(
        self,
        folder: Path,
        flows: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        transport: str = "udp",
        sip: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._profiler: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.admin_port = free_port(socket.SOCK_STREAM)
        settings: dict[str, Any] = {
            "sip": {"listen": listening(transport, self.port), "domains": ["example.com"], **(sip or {})},
            "location": "memory:",
            "freeswitch": {},
            "flows": [str(flow) for flow in flows],
            **(more or {}),
        }
        admin = {"listen": f"{HOST}:{self.admin_port}", "token_file": str(folder / "orchestrator.token")}
        settings["admin"] = admin | settings.get("admin", {})
        if transport == "tls":
            public, key = map(str, certificate(folder))
            settings["sip"]["tls"] = {"certificate": public, "key": key, "ca": public}
        config = folder / "orchestrator.yml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        super().__init__([sys.executable, "-m", "orchestrator", "run", "-c", str(config)], folder, environment)
        self.wait_serving(lambda: "ready " in self.log())
        self._profiler = watch(self.process.pid, os.environ.get(PROFILE))

    def stop(self) -> None:
        if self._profiler is not None:
            self._profiler.send_signal(signal.SIGINT)  # it writes what it has seen
            self._profiler.wait(60)
        super().stop()


def py_spy() -> str | None:
    return of_python("py-spy")


def watch(pid: int, target: str | None) -> subprocess.Popen[bytes] | None:
    """py-spy for a process, until that ends or it is interrupted: `target-<n>.svg`. None without a target."""
    program = py_spy()
    if not target or program is None:
        return None
    number = 1
    while (svg := Path(f"{target}-{number}.svg")).exists():
        number += 1
    svg.touch()  # the next server's is another one
    options = ["--pid", str(pid), "--output", str(svg), "--rate", "250", "--duration", "86400", "--nonblocking"]
    with on_core(-1):
        return subprocess.Popen([program, "record", *options], stdout=sys.stderr, preexec_fn=ends_with_us())


class Kamailio(Server):
    """Kamailio with one worker and the allocator it is fastest with: Debian's default one counts every fragment."""

    name = "kamailio"

    def __init__(self, folder: Path, transport: str = "udp") -> None:
        program = shutil.which("kamailio", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if program is None:
            raise Skipped("Kamailio is not installed (Debian: kamailio)")
        modules = next(iter(Path("/usr/lib").glob("*/kamailio/modules/tm.so")), None)
        if modules is None:
            raise Skipped("no modules of Kamailio in /usr/lib/*/kamailio/modules")
        self.port = free_port()
        text = self._configuration(modules.parent)
        config = folder / "kamailio.cfg"
        if transport != "udp":
            text = text.replace("disable_tcp=yes", _streams(folder, transport, self.port))
        config.write_text(text.replace("@ADDRESS@", f"{HOST}:{self.port}").replace("@MODULES@", str(modules.parent)))
        options = ["-x", "tlsf", "-X", "tlsf", "-DD", "-E", "-m", "512", "-Y", str(folder), "-f", str(config)]
        super().__init__([program, *options], folder)
        self.wait_serving(lambda: udp_bound(HOST, self.port) and (transport == "udp" or tcp_bound(HOST, self.port)))

    def _configuration(self, modules: Path) -> str:
        """Its text, without address and folders. Raises Skipped."""
        return (Path(__file__).parent / "kamailio.cfg").read_text()


class OpenSips(Server):
    """OpenSIPS with one worker and its fast allocator: the default one is for debugging, as Debian's of Kamailio."""

    name = "opensips"

    def __init__(self, folder: Path) -> None:
        program = self.program()
        if program is None:
            raise Skipped("OpenSIPS is not installed (OPENSIPS=<path of the program>)")
        self.port = free_port()
        modules = _modules_of(program)
        text = (Path(__file__).parent / "opensips.cfg").read_text()
        for module in re.findall(r'loadmodule "(.*)"', text):
            where = next((place for place in (modules, *modules.glob("*")) if (place / module).exists()), None)
            if where is not None:  # else it is a part of the program
                text = text.replace(f'"{module}"', f'"{where / module}"')
        config = folder / "opensips.cfg"
        config.write_text(text.replace("@ADDRESS@", f"{HOST}:{self.port}").replace("@MODULES@", f"{modules}/"))
        options = ["-F", "-a", "F_MALLOC", "-m", "2048", "-M", "64", "-w", str(folder), "-f", str(config)]
        super().__init__([program, *options], folder)
        self.wait_serving(lambda: udp_bound(HOST, self.port))

    @staticmethod
    def program() -> str | None:
        """Where it is: what OPENSIPS in the environment names, or the one on the path."""
        return os.environ.get("OPENSIPS") or shutil.which("opensips", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _modules_of(program: str) -> Path:
    """Beside a program that stands where it was built, else where a package puts them."""
    built = Path(program).resolve().parent / "modules"
    if built.is_dir():
        return built
    packaged = [*Path("/usr/lib").glob("*/opensips/modules"), *Path("/usr").glob("*/lib*/opensips/modules")]
    return next(iter(packaged), built)


class KamailioPython(Kamailio):
    """Kamailio with its routes in Python (KEMI): bench/kamailio_kemi.py instead of the script of kamailio.cfg."""

    name = "kamailio python"

    def _configuration(self, modules: Path) -> str:
        if not (modules / "app_python3.so").exists():
            raise Skipped("Kamailio's app_python3 is not installed (Debian: kamailio-python3-modules)")
        head, _, _ = super()._configuration(modules).partition("request_route {")
        script = Path(__file__).parent / "kamailio_kemi.py"
        python = f'loadmodule "app_python3.so"\nmodparam("app_python3", "load", "{script}")\ncfgengine "python"\n'
        return f'{head}modparam("usrloc", "preload", "location")\n{python}'


class Sippy(Server):
    """sippy's b2bua_simple, which calls one next hop, with its log off."""

    name = "sippy"

    def __init__(self, folder: Path, next_hop: str) -> None:
        program = self.program()
        if program is None:
            raise Skipped("sippy is not installed (pip install sippy)")
        self.port = free_port()
        command = [program, "-f", "-l", HOST, "-p", str(self.port), "-n", next_hop]
        super().__init__(command, folder, {"SIPLOG_BEND": "none"})
        self.wait_serving(lambda: udp_bound(HOST, self.port))

    @staticmethod
    def program() -> str | None:
        return of_python("b2bua_simple")


AnyProxy = Orchestrator | Kamailio | OpenSips | Sippy


def of_python(name: str) -> str | None:
    """A program of our virtual environment, or the system's."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


def _streams(folder: Path, transport: str, port: int) -> str:
    """What Kamailio is told to serve connections with one worker."""
    lines = [
        "tcp_children=1",
        "tcp_connection_lifetime=3605",
        "tcp_max_connections=30000",
        f"listen={transport}:{HOST}:{port}",
    ]
    if transport == "tls":
        public, key = certificate(folder)
        lines += ["enable_tls=yes", 'loadmodule "@MODULES@/tls.so"', 'modparam("tls", "tls_method", "TLSv1.2+")']
        lines += [f'modparam("tls", "certificate", "{public}")', f'modparam("tls", "private_key", "{key}")']
    return "\n".join(lines)
