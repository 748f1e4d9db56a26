"""A RabbitMQ for a test or a benchmark: its own node, folders and ports, on loopback. Needs Debian's package
rabbitmq-server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from bench.children import ends_with_us

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PATIENCE = 90.0
"""Seconds for a node to come up on a busy machine."""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Rabbit:
    """One broker, with TLS where its folder has certificate.pem, key.pem and ca.pem.

    `start` waits until it answers, `kill` is kill -9, `stop` is SIGTERM.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.tls_port, self._names, self._between = free_ports(4)
        (folder / "enabled_plugins").write_text("[].\n")
        if (folder / "certificate.pem").exists():
            files = {"certfile": "certificate.pem", "keyfile": "key.pem", "cacertfile": "ca.pem"}
            lines = [f"ssl_options.{key} = {folder / name}" for key, name in files.items()]
            (folder / "rabbitmq.conf").write_text(
                "\n".join([f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}", *lines, ""])
            )
        self._env = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._between),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        epmd = shutil.which("epmd", path=self._env["PATH"])
        assert epmd is not None
        self._epmd = subprocess.Popen(
            [epmd, "-port", str(self._names)],
            env=self._env,
            stderr=subprocess.DEVNULL,
            preexec_fn=ends_with_us(),
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [str(PROGRAM)],
                env=self._env,
                cwd=self.folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=ends_with_us(),
            )
        end = time.monotonic() + PATIENCE
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "out").read_text()[-2000:]
            assert time.monotonic() < end, "RabbitMQ does not come up"
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it speaks AMQP: to a wrong header it says which one is right."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as sock:
                sock.settimeout(5.0)
                sock.sendall(b"AMQP\x00\x00\x00\x00")
                return sock.recv(8).startswith(b"AMQP")
        except OSError:
            return False

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def control(self, *arguments: str) -> None:
        """`rabbitmqctl`"""
        command = [str(PROGRAM.with_name("rabbitmqctl")), "-n", self._env["RABBITMQ_NODENAME"], *arguments]
        subprocess.run(command, env=self._env, check=True, capture_output=True, timeout=PATIENCE)

    def hang(self) -> None:
        """Let it do nothing, its connections stay."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def _end(self, number: signal.Signals) -> None:
        """The shell and the virtual machine it runs: the group is ours alone."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
            self._process.wait(60)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def close(self) -> None:
        self.kill()
        self._epmd.kill()
        self._epmd.wait()
