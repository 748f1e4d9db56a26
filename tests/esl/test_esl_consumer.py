"""A consumer that raises: the one thing here that does log an error."""

from __future__ import annotations

from loguru import logger

from orchestrator.errors import EslError
from orchestrator.esl.codec import EslEvent
from orchestrator.runtime.esl_link import SafeInboundESL
from orchestrator.testing.freeswitch import FakeFreeSwitch


def test_a_handler_that_raises_is_logged_and_the_next_one_called(recording) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="ERROR")
    seen: list[EslEvent] = []

    def broken(event: EslEvent) -> None:
        raise RuntimeError("no")

    with FakeFreeSwitch() as fs:
        client = SafeInboundESL(fs.host, fs.port, fs.password)
        client.connect()
        client.register_handle("DTMF", broken)
        client.register_handle("DTMF", seen.append)
        client.send("event plain DTMF")
        for event in recording("dtmf").only("DTMF").events:
            fs.emit(event)
        client.send("api status")  # its reply comes behind the events
        client.end(EslError("enough"))
        assert client.join(5)
    logger.remove(sink)
    assert [e.get("DTMF-Digit") for e in seen] == ["2", "5", "#"]
    assert client.counters.handler_errors == 3
    assert all("event_handler_fault" in line for line in lines)


def test_a_handler_may_send_commands_while_events_pour_in(recording, monkeypatch) -> None:
    """The queue is full because the handler waits for a reply that lies behind more events: the reader reads on."""
    monkeypatch.setattr("orchestrator.runtime.esl_connection.QUEUE", 20_000)
    answers: list[str] = []
    with FakeFreeSwitch() as fs:
        client = SafeInboundESL(fs.host, fs.port, fs.password)
        client.connect()
        client.register_handle("DTMF", lambda _: answers.append(client.send("api status").text[:2]))
        client.send("event plain DTMF")
        for _ in range(100):
            fs.emit(recording("dtmf").find("DTMF"))
        while len(answers) < 100:
            client.send("api status")
        client.stop()
    assert answers == ["UP"] * 100


def test_hooks_of_greenswitch_subclasses_and_log_lines() -> None:
    calls: list[str] = []

    class Hooked(SafeInboundESL):
        def before_handle(self, event: object) -> None:
            calls.append("before")

        def after_handle(self, event: object) -> None:
            calls.append("after")

    with FakeFreeSwitch() as fs, Hooked(fs.host, fs.port, fs.password) as client:
        client.register_handle("log", lambda frame: calls.append(f"{frame.data}{frame.headers['Log-Level']}"))
        fs.write(b"Content-Type: log/data\nContent-Length: 3\nLog-Level: 7\n\nhi\n")
        client.send("api status")
        client.end(EslError("enough"))
        client.join(5)
    assert calls == ["before", "hi\n7", "after"]
