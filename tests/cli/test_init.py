"""`orchestrator init`, and what commands say where there is nothing to work with."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest
from called import orchestrator

from orchestrator.cli.init import FILES

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=150,
    )


def test_a_new_folder_checks_and_tests(tmp_path: Path) -> None:
    made = orchestrator(tmp_path, "init", "site")
    assert made.returncode == 0, made.stderr
    site = tmp_path / "site"
    assert all((site / name).is_file() for name in FILES)
    checked = orchestrator(site, "check")
    assert (checked.returncode, checked.stderr) == (0, "no problems found\n")
    tested = orchestrator(site, "test")
    assert tested.returncode == 0 and "1 passed, 0 failed" in tested.stdout


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "users.yaml").write_text("alice: x\n")
    made = orchestrator(tmp_path, "init")
    assert made.returncode == 1 and "config/users.yaml exists already" in made.stderr
    assert not (tmp_path / "flows").exists()


def test_tests_without_a_folder_of_them(tmp_path: Path) -> None:
    done = orchestrator(tmp_path, "test")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert "there is no folder tests here" in done.stderr


@pytest.mark.parametrize("admin", ["127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:1/"])
def test_an_admin_address_needs_no_scheme(tmp_path: Path, admin: str) -> None:
    done = orchestrator(tmp_path, "trace", "--admin", admin)
    assert done.returncode == 1 and "no server answers at http://127.0.0.1:1:" in done.stderr


def test_an_admin_address_that_is_none(tmp_path: Path) -> None:
    done = orchestrator(tmp_path, "trace", "--admin", "ftp://x")
    assert done.returncode == 2 and "write 127.0.0.1:8080" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tmp_path: Path, shell: str) -> None:
    source = run(tmp_path, _ORCHESTRATOR_COMPLETE=f"{shell}_source")
    assert "orchestrator" in source.stdout and "Traceback" not in source.stderr
    words = {"COMP_WORDS": "orchestrator sip", "COMP_CWORD": "1" if shell != "fish" else "sip"}
    assert "siptrace" in run(tmp_path, _ORCHESTRATOR_COMPLETE=f"{shell}_complete", **words).stdout


def test_run_serves_in_a_new_folder_and_siptrace_asks_it(tmp_path: Path) -> None:
    assert orchestrator(tmp_path, "init").returncode == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        admin = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "config" / "orchestrator.yml"
    config.write_text(config.read_text() + f"admin: {{listen: '{admin}'}}\n")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SIP_LISTEN": "udp:127.0.0.1:0"}
    command = [sys.executable, "-m", "orchestrator", "run"]
    said = tmp_path / "said"
    with said.open("w") as stream:
        server = subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=stream)
    try:
        deadline = monotonic() + 90
        while "ready udp:" not in said.read_text():
            assert server.poll() is None and monotonic() < deadline, said.read_text()
            sleep(0.05)
        traced = run(tmp_path, "siptrace", "alice", "--for", "1s")
        assert (traced.returncode, "0 messages" in traced.stderr) == (0, True), traced.stderr
    finally:
        server.kill()
        server.wait(5)
