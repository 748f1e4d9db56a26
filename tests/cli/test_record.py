"""`orchestrator record`: a process of its own between a fake FreeSWITCH and a client."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.subprocess import PIPE, Popen

from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.recordings import Recording

CODE = "import sys; from orchestrator.cli import main; main(sys.argv[1:])"


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Any]:
    """Starts the command in an empty folder; what it says goes to a file, so that it never waits for us."""

    def start(*arguments: str) -> Any:
        (tmp_path / "said").touch()
        with (tmp_path / "said").open("w") as said:
            return Popen([sys.executable, "-c", CODE, "record", *arguments], cwd=tmp_path, stdout=PIPE, stderr=said)

    return start


def until(true: Callable[[], object]) -> None:
    with gevent.Timeout(60):
        while not true():
            gevent.sleep(0.01)


def port_of(said: Path, process: Any) -> int:
    """The port it listens on, as it says."""

    def line() -> str:
        assert process.poll() is None, said.read_text()
        return next((line for line in said.read_text().splitlines() if "Ctrl-C ends it" in line), "")

    until(line)
    return int(line().partition(";")[0].rpartition(":")[2])


def test_a_recording_until_ctrl_c(tmp_path: Path, record: Callable[..., Any]) -> None:
    said = tmp_path / "said"
    with FakeFreeSwitch(password="s3cret") as switch:
        (tmp_path / "config").mkdir()
        server = f"{{host: 127.0.0.1, port: {switch.port}, password: s3cret}}"
        (tmp_path / "config" / "orchestrator.yml").write_text(f"freeswitch: {{fs1: {server}}}\n")
        process = record("--out", "x.eslrec", "--listen", "127.0.0.1:0", "--mask", "all")
        with socket.create_connection(("127.0.0.1", port_of(said, process))) as client:
            client.sendall(b"auth s3cret\n\nevent plain HEARTBEAT\n\n")
            switch.wait_subscribed("HEARTBEAT")
            switch.heartbeat()
            until(lambda: b"HEARTBEAT" in client.recv(65_536))
            until(lambda: "Event-Name: HEARTBEAT" in (tmp_path / "x.eslrec").read_text())
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
    recording = Recording.load(tmp_path / "x.eslrec")
    assert recording.meta["server"] == "fs1" and recording.meta["masked"] == "addresses, digits, numbers"
    assert [event.key for event in recording.events] == ["HEARTBEAT"]
    assert "s3cret" not in (tmp_path / "x.eslrec").read_text()
    assert (tmp_path / "x.eslrec").stat().st_mode & 0o777 == 0o600, "it tells who called whom"
    assert "x.eslrec: 4 frames, 2 commands" in said.read_text()
    assert "Traceback" not in said.read_text()


def test_a_recording_nobody_came_to(tmp_path: Path, record: Callable[..., Any]) -> None:
    process = record("--out", "x.esl", "--to", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--for", "50ms")
    assert process.wait(60) == 1
    assert (tmp_path / "said").read_text().endswith("error: nobody has connected: nothing is written\n")
    assert not (tmp_path / "x.esl").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "x.txt"), "x.txt is neither .esl nor .eslrec"),
        (("--out", "there.esl"), "there.esl exists; recordings are not overwritten"),
        (("--out", "x.esl", "--for", "soon"), "'soon' is not a time; write 10m"),
        (("--out", "x.esl"), "no FreeSWITCH server is configured; name one with --to HOST:PORT"),
        (("--out", "x.esl", "--to", "nowhere"), "'nowhere' is not HOST:PORT"),
        (("--out", "x.esl", "--to", "h:99999"), "'h:99999' is not HOST:PORT"),
        (("--out", "x.esl", "--server", "fs3", "-c", "two.yml"), "unknown server 'fs3'; did you mean 'fs1'?"),
        (("--out", "x.esl", "-c", "two.yml"), "unknown server ''; known: fs1, fs2"),
        ((), "Missing option '--out'"),
    ],
)
def test_what_it_cannot_do(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    from orchestrator.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.esl").touch()
    (tmp_path / "two.yml").write_text("freeswitch: {fs1: {host: 127.0.0.1}, fs2: {host: 127.0.0.1}}\n")
    with pytest.raises(SystemExit) as ended:
        main(["record", *arguments])
    assert ended.value.code == 2
    assert said in capfd.readouterr().err
