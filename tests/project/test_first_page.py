"""The README's first page to the letter: a fresh clone, an empty environment, `make run`, two phones, calls."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from orchestrator.testing.sockets import SocketPhone

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.timeout(500),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone of the repository"),
    pytest.mark.skipif(shutil.which("make") is None or shutil.which("git") is None, reason="needs git and make"),
]
PAGE = (ROOT / "README.md").read_text()


def test_the_page_says_what_is_done_here() -> None:
    start = PAGE[PAGE.index("## Start") : PAGE.index("## One flow")]
    assert re.search(r"^make run ", start, re.MULTILINE)
    assert "user names of your choice" in start


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with its own virtual environment, installed by make; pip's cache is used where there is one."""
    folder = tmp_path_factory.mktemp("fresh") / "orchestrator"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True, capture_output=True)
    pip = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "http", "HTTP", "no_proxy", "SSL_"))
    }
    done = subprocess.run(
        ["make", ".venv/.stamp-run"],
        cwd=folder,
        env={**pip, "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=400,
    )
    if done.returncode:
        pytest.skip(f"pip could not install without a network: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture(scope="module")
def server(clone: Path, port_5060: None) -> Iterator[tuple[int, int, Path]]:
    """`make run` in an empty environment, on the ports of the page where they are free. SIP port, HTTP port, output."""
    environ = {"PATH": os.environ["PATH"]}
    if not (free(5060, socket.SOCK_DGRAM) and free(5060, socket.SOCK_STREAM) and free(8080, socket.SOCK_STREAM)):
        environ |= {"SIP_LISTEN": "udp:127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0"}
    output = clone / "output.txt"
    with output.open("w") as out:
        process = subprocess.Popen(
            ["make", "run"], cwd=clone, env=environ, stdout=out, stderr=out, start_new_session=True
        )
    try:
        ready = wait_for(
            lambda: re.search(r"^ready udp:\S+:(\d+) .*http://\S+:(\d+)$", output.read_text(), re.MULTILINE)
        )
        yield int(ready[1]), int(ready[2]), output
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as sock:
        try:
            sock.bind(("0.0.0.0", port))  # as the page says
        except OSError:
            return False
    return True


def wait_for(condition: Callable[[], object], seconds: float = 90.0) -> object:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        gevent.sleep(0.02)
    return found


@pytest.mark.parametrize(("one", "other"), [("anna", "otto"), ("bob", "200"), ("101", "8801")])
def test_two_phones_of_any_names_call_each_other(server: tuple[int, int, Path], one: str, other: str) -> None:
    sip, _, output = server
    phones = [SocketPhone(f"{user}@127.0.0.1", ("127.0.0.1", sip)) for user in (one, other)]
    try:
        for phone in phones:
            phone.register()
            wait_for(lambda phone=phone: phone.registered)
        for caller, callee, name in ((*phones, other), (*phones[::-1], one)):
            call = caller.invite(f"{name}@127.0.0.1")
            wait_for(lambda callee=callee: any(c.incoming and c.state == "ringing" for c in callee.calls))
            ringing = callee.calls[-1]
            ringing.answer()
            wait_for(lambda call=call: call.state == "answered")
            call.hangup()
            wait_for(lambda ringing=ringing: ringing.state == "ended")
    finally:
        for phone in phones:
            phone.close()
    assert "call_begun" in output.read_text() and "run_failed" not in output.read_text()


def test_health_and_metrics(server: tuple[int, int, Path]) -> None:
    for path in ("healthz", "readyz", "metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{server[1]}/{path}", timeout=60) as answer:
            assert answer.status == 200
