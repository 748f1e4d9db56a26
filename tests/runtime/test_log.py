"""What a stranger wrote stays data in our log: one record is one line, and nothing in it is obeyed (S27-S29)."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Literal

import gevent
import pytest
from loguru import logger

from orchestrator.runtime import log
from orchestrator.runtime.log import PER_SECOND, Limiter, escape, render_ready


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(format: Literal["text", "json"] = "text", level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    log.setup(level, format, stream)
    return stream


def test_text_is_one_line_of_time_level_message_and_fields() -> None:
    stream = logged()
    logger.bind(call="a84b4c76", code=200, why="no answer", empty="").info("call answered")
    line = stream.getvalue()
    time, rest = line.split(" ", 1)
    assert time.endswith("Z") and "T" in time
    assert rest == 'INFO    call answered call=a84b4c76 code=200 why="no answer" empty=""\n'


@pytest.mark.parametrize(
    "evil",
    [
        "bob\r\n2026-01-01T00:00:00.000Z INFO    admin logged in",
        "\x1b[2J\x1b]0;owned\x07",
        "a\u2028b\u2029c",
        "a\x85b\x9bc",
        "\u202egnp.exe",
        "nul\0",
    ],
)
def test_control_characters_are_escaped_wherever_they_stand(evil: str) -> None:
    stream = logged()
    logger.bind(display=evil, **{evil: 1}).warning(evil)
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert text == escape(text[:-1]) + "\n"


def test_quotes_and_backslashes_cannot_end_a_value() -> None:
    stream = logged()
    logger.bind(display='x" level=ERROR y="', path="a\\").info("m")
    assert 'display="x\\" level=ERROR y=\\"" path=a\\\n' in stream.getvalue()


@pytest.mark.parametrize("text", ["{}", "{0.password}", "{level} {extra[secret]}", "<red>x</red>", "%s %(x)d"])
def test_text_is_never_formatted(text: str) -> None:
    stream = logged()
    logger.bind(secret="s3cret", display=text).info(text)
    line = stream.getvalue()
    assert text in line
    assert line.count("s3cret") == 1  # where it was bound, nowhere else


def test_json_is_one_object_per_line() -> None:
    stream = logged("json")
    logger.bind(call="a84b4c76", code=200, evil="x\n\u2028\x1b", time="mine").info("call answered")
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    record = json.loads(line)
    assert record["time"].endswith("+00:00")
    del record["time"]
    assert record == {
        "level": "info",
        "event": "call answered",
        "call": "a84b4c76",
        "code": 200,
        "evil": "x\n\u2028\x1b",
    }


def test_json_keeps_a_message_that_was_bound() -> None:
    stream = logged("json")
    logger.bind(message="no such user").warning("run_failed")
    record = json.loads(stream.getvalue())
    assert (record["event"], record["message"]) == ("run_failed", "no such user")


def test_the_line_of_a_server_that_is_ready_has_the_format_of_the_log() -> None:
    assert (
        render_ready("udp:0.0.0.0:5060", "admin token, kept\n", "text") == "ready udp:0.0.0.0:5060\nadmin token, kept\n"
    )
    record = json.loads(render_ready("udp:0.0.0.0:5060", "a token\n", "json"))
    assert record.pop("time").endswith("+00:00")
    assert record == {"level": "info", "event": "ready", "addresses": "udp:0.0.0.0:5060", "notice": "a token"}
    assert "notice" not in json.loads(render_ready("", "", "json"))


def failing(password: str) -> None:
    raise ValueError("line one\nline two \x1b[31m")


@pytest.mark.parametrize("format", ["text", "json"])
def test_tracebacks_show_code_but_no_values(format: Literal["text", "json"]) -> None:
    stream = logged(format)
    try:
        failing("s3cret" + "!")
    except ValueError:
        logger.exception("it failed")
    text = stream.getvalue()
    assert "failing" in text and "test_log.py" in text
    assert "s3cret!" not in text
    assert "\x1b" not in text
    if format == "text":
        assert text.endswith("    ValueError: line one\\nline two \\x1b[31m\n")
        assert all(line.startswith("    ") for line in text.splitlines()[1:])
    else:
        assert json.loads(text)["exception"][-1] == "ValueError: line one\\nline two \\x1b[31m"


def test_level_bounds_what_is_written() -> None:
    stream = logged(level="warning")
    logger.info("quiet")
    logger.warning("loud")
    assert "loud" in stream.getvalue() and "quiet" not in stream.getvalue()


def test_libraries_are_heard_from_warnings_up() -> None:
    stream = logged()
    library = logging.getLogger("urllib3.connectionpool")
    library.debug("GET /secret?key=s3cret")  # urllib3 really says such things
    library.warning("odd\nanswer %s", "{0}")
    assert "s3cret" not in stream.getvalue()
    assert 'WARNING library library=urllib3.connectionpool text="odd\\nanswer {0}"' in stream.getvalue()


def test_greenlets_that_die_are_logged_like_everything_else() -> None:
    hub = gevent.get_hub()
    stream = logged()
    log.adopt(hub)
    try:
        gevent.spawn(failing, "s3cret!").join()
        gevent.spawn(open, "/no/such\nfile").join()
    finally:
        del hub.print_exception
    text = stream.getvalue()
    assert 'ERROR   greenlet_fault source=ValueError reason="line one\\nline two' in text
    assert text.splitlines()[-1].endswith("'/no/such\\\\nfile'\"")
    assert "WARNING system_refused source=FileNotFoundError" in text
    assert "s3cret!" not in text


# --- floods -----------------------------------------------------------------------------------------------------------


def record(message: str, source: str | None) -> dict[str, Any]:
    return {"message": message, "extra": {} if source is None else {"source": source}}


def test_writes_that_were_done_are_all_told() -> None:
    """A flood of refused writes, which needs no token, hides none that was done."""
    limiter = Limiter(lambda: 100.0)

    def write(level: str) -> bool:
        return limiter({**record("admin_write", "127.0.0.1"), "level": SimpleNamespace(name=level)})

    assert sum(write("WARNING") for _ in range(100)) == PER_SECOND
    assert sum(write("INFO") for _ in range(100)) == 100
    assert limiter.suppressed == 100 - PER_SECOND


def test_source_is_limited_per_message_and_second() -> None:
    now = 100.0
    limiter = Limiter(lambda: now)
    taken = sum(limiter(record("malformed", "192.0.2.1")) for _ in range(10_000))
    assert taken == PER_SECOND
    assert limiter(record("malformed", "192.0.2.2"))
    assert limiter(record("refused", "192.0.2.1"))
    assert limiter.suppressed == 10_000 - PER_SECOND
    now += 1
    following = record("malformed", "192.0.2.1")
    assert limiter(following)
    assert following["extra"]["suppressed"] == 10_000 - PER_SECOND
    assert limiter(following) and "suppressed" in following["extra"]


def test_what_has_no_source_is_never_left_out() -> None:
    limiter = Limiter(lambda: 0.0)
    assert all(limiter(record("flow says", None)) for _ in range(1_000))


def test_sources_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_SOURCES", 100)
    limiter = Limiter(lambda: 0.0)
    for number in range(1_000):
        limiter(record("malformed", f"192.0.2.{number}"))
    assert len(limiter._seen) <= 100


FACTS = {"call": "a84b4c76", "code": 200, "by": 'x"\x1b[2J', "empty": "", "none": None}


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_short_way_writes_the_same_line(format: Literal["text", "json"]) -> None:
    stream = logged(format)
    logger.bind(**FACTS).info("call_ended")
    log.tell("info", "call_ended", FACTS)
    first, second = (line.partition("Z " if format == "text" else '",')[::2] for line in stream.getvalue().splitlines())
    assert first[1] == second[1] and len(first[0]) == len(second[0])


@pytest.mark.parametrize(("level", "written"), [("debug", 2), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_short_way_heeds_the_level(level: Literal["debug", "info", "warning", "error"], written: int) -> None:
    stream = logged("text", "info")
    log.set_level(level)
    log.tell("info", "call_ended", FACTS)
    log.tell("warning", "run_failed", FACTS)
    assert len(stream.getvalue().splitlines()) == written


def test_whoever_else_listens_hears_what_takes_the_short_way() -> None:
    stream, heard = logged(), []
    sink = logger.add(lambda message: heard.append(message.record["extra"]))
    log.tell("info", "call_ended", FACTS)
    assert heard == [FACTS] and stream.getvalue().count("call_ended") == 1
    logger.remove(sink)
    log.tell("info", "call_ended", FACTS)
    assert len(heard) == 1 and stream.getvalue().count("call_ended") == 2


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    stream = logged()
    stream.close()
    log.tell("info", "call_ended", FACTS)


class Unspeakable:
    def __str__(self) -> str:
        raise TypeError("no text")


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_value_that_cannot_be_written_stops_nobody(format: Literal["text", "json"]) -> None:
    stream = logged(format)
    log.tell("info", "call_ended", {"by": Unspeakable()})
    log.tell("info", "call_ended", FACTS)
    assert len(stream.getvalue().splitlines()) == 1
