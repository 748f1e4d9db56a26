"""Logging: loguru with a renderer of our own, because what is logged was often written by strangers.

The rule for all code here: the message is the stable name of the event, listed in docs/log.md, and what varies is
bound (`logger.bind(flows=3).info("flows_reloaded")`). loguru formats a message only when it is given arguments, and
then `{0.password}` in a display name would be looked up; so none is ever given any. In the text form control characters
are escaped, a line feed included: one record is one line and no terminal obeys a User-Agent. In the JSON form one
record is one object on one line. Tracebacks show code, never the values of variables (`diagnose`), which may be
secrets.

A record bound to a `source` is limited to `PER_SECOND` lines per second, message and source; how many were left out is
said on the next one. Whoever logs what the network sends binds its address. A traceback is bound to its `place` in the
code instead: a bug that any address can strike is told as often, whoever strikes it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal, TextIO

from loguru import logger

PER_SECOND = 10
"""Lines per second for one message from one source; an attack must not fill the disk."""

MAX_SOURCES = 10_000

AUDIT = frozenset(("admin_write",))
"""Of these every line at level info is written: they say what was done by somebody who may do it, and a flood of
refused requests must not hide that."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""C0, C1 and DEL (terminals obey them), line and paragraph separators, and what reverses the direction of writing."""

_PLAIN = re.compile("[^\\s\"'=" + _CONTROL.pattern[1:-1] + "]+")
"""A value that stands without quotes."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


Line = Callable[[datetime, str, str, Mapping[str, Any]], str]
"""Renders a record without a traceback."""


class _Output:
    """What loguru writes to, of which there is one."""

    def __init__(self) -> None:
        self.level = "info"
        self._write: Callable[[Any], None] | None = None
        self._limiter: Limiter | None = None
        self._handler: int | None = None
        self._stream: TextIO | None = None
        self._line: Line | None = None

    def begin(self, write: Callable[[Any], None], limiter: Limiter, stream: TextIO, line: Line) -> None:
        self._write, self._limiter, self._handler = write, limiter, None
        self._stream, self._line = stream, line

    def tell(self, level: Literal["info", "warning"], event: str, facts: Mapping[str, Any]) -> None:
        """Do what `logger.bind(**facts).log(level, event)` does, at a tenth of its cost, half of which is loguru's
        search for the code that logs. For lines of each call, which have no `source`. Where loguru has other sinks,
        loguru writes the line."""
        stream, line, listening = self._stream, self._line, logger._core.handlers  # type: ignore[attr-defined]
        if stream is None or line is None or len(listening) != 1 or self._handler not in listening:
            logger.bind(**facts).log(level.upper(), event)
        elif _LEVELS[level] >= _LEVELS[self.level]:
            with suppress(Exception):  # a full disk, a closed stderr, a value without a text: the turn goes on
                stream.write(line(datetime.now(UTC), level, event, facts))
                stream.flush()

    def set_level(self, level: str) -> None:
        self.level = level
        if self._write is None or self._limiter is None:
            return
        before, limiter = self._handler, self._limiter
        self._handler = logger.add(
            self._write, level=level.upper(), format="", filter=limiter, backtrace=False, diagnose=False, catch=True
        )
        if before is not None:
            logger.remove(before)


_output = _Output()
tell = _output.tell


def level_now() -> str:
    """From which level on is written."""
    return _output.level


def set_level(level: str) -> None:
    """Write from this level on (debug, info, warning, error), until it is changed again."""
    _output.set_level(level)


def setup(level: str = "info", format: Literal["text", "json"] = "text", stream: TextIO | None = None) -> Limiter:
    """Send everything from `level` up to `stream` (default stderr), the standard library's warnings included."""
    out = stream if stream is not None else sys.stderr
    render, line = (render_json, json_line) if format == "json" else (render_text, text_line)
    limiter = Limiter()

    def write(message: Any) -> None:
        out.write(render(message.record))
        out.flush()

    logger.remove()
    _output.begin(write, limiter, out, line)
    _output.set_level(level)
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
    return limiter


def adopt(hub: Any) -> None:
    """Have what gevent says of greenlets that died logged like everything else, instead of printed as it is.

    An OSError there is the system's (no descriptors left for a connection), not a bug: it gets a line and no traceback.
    """

    def report(context: object, kind: type[BaseException], value: Any, trace: Any) -> None:
        bound = logger.bind(source=kind.__name__, reason=str(value))
        if issubclass(kind, OSError):
            bound.warning("system_refused")
        else:
            bound.opt(exception=(kind, value, trace)).error("greenlet_fault")

    hub.print_exception = report


def escape(text: str) -> str:
    r"""Control characters as `\n`, `\x1b`, `\u202e`."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def render_text(record: Mapping[str, Any]) -> str:
    """`2026-11-23T14:15:24.123Z INFO    call answered call=a84b4c76 code=200`, a traceback on lines of its own."""
    head = text_line(record["time"].astimezone(UTC), record["level"].name, record["message"], record["extra"])
    return head + "".join(f"    {line}\n" for line in _traceback(record["exception"]))


def text_line(time: datetime, level: str, message: str, fields: Mapping[str, Any]) -> str:
    """The same without a traceback; `time` in UTC."""
    text = f"{time.isoformat('T', 'milliseconds')[:-6]}Z {level.upper():<7} {escape(message)}"
    for name, value in fields.items():
        text += f" {escape(name)}={_value(value)}"
    return f"{text}\n"


def render_json(record: Mapping[str, Any]) -> str:
    """One object: time, level, event, what was bound, and `exception` as a list of lines."""
    fields = record["extra"]
    if lines := _traceback(record["exception"]):
        fields = {**fields, "exception": lines}
    return json_line(record["time"].astimezone(UTC), record["level"].name, record["message"], fields)


def json_line(time: datetime, level: str, message: str, fields: Mapping[str, Any]) -> str:
    """The same of these; `time` in UTC."""
    own = {"time": time.isoformat(timespec="milliseconds"), "level": level.lower(), "event": message}
    return json.dumps({**own, **fields, **own}, default=str) + "\n"


def render_ready(addresses: str, notice: str, format: str) -> str:
    """The line that comes at every level of the log: we serve at these addresses. `notice` is for who starts us."""
    if format != "json":
        return f"ready {addresses}\n{notice}"
    data = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": "info", "event": "ready"}
    return json.dumps({**data, "addresses": addresses} | ({"notice": notice.strip()} if notice else {})) + "\n"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    if _PLAIN.fullmatch(text):
        return text
    return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _traceback(exception: Any) -> list[str]:
    """Files and code lines, then the error; each entry one line, whatever the error's text holds."""
    if exception is None or exception.value is None:
        return []
    frames = traceback.format_tb(exception.traceback)
    lines = [line for frame in frames for line in frame.rstrip().split("\n")]
    return [*lines, escape(f"{exception.type.__name__}: {exception.value}")]


def place_of(error: BaseException) -> str:
    """`file:line` where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else type(error).__name__


class Limiter:
    """loguru filter: bounds what one source can make us write. `suppressed` counts the lines left out."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.suppressed = 0
        self._clock = clock
        self._seen: dict[tuple[str, str], list[int]] = {}

    def __call__(self, record: Any) -> bool:
        source = record["extra"].get("place") or record["extra"].get("source")
        if source is None or (record["message"] in AUDIT and record["level"].name == "INFO"):
            return True
        key = (record["message"], str(source))
        second = int(self._clock())
        entry = self._seen.get(key)
        if entry is None:
            if len(self._seen) >= MAX_SOURCES:
                self._seen.clear()
            entry = self._seen[key] = [second, 0, 0]
        if entry[0] != second:
            if entry[2]:
                record["extra"]["suppressed"] = entry[2]
            entry[:] = [second, 0, 0]
        entry[1] += 1
        if entry[1] <= PER_SECOND:
            return True
        entry[2] += 1
        self.suppressed += 1
        return False


class _Forward(logging.Handler):
    """What libraries tell the standard library's `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in ("WARNING", "ERROR", "CRITICAL") else "WARNING"
        text = record.getMessage()
        bound = logger.bind(library=record.name, text=text, source=record.name)
        bound.opt(exception=record.exc_info).log(level, "library")
