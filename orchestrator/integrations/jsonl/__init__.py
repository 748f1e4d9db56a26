"""The kind of sink `file`: one line of JSON for each event, at the end of whatever file has the name then."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import gevent
from pydantic import BaseModel, ConfigDict

from orchestrator.errors import OrchestratorError
from orchestrator.packages.sink import Outgoing, SinkContext, SinkKind, Undelivered


class FileSettings(BaseModel):
    """Keys of a sink of `type: file`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: Path


class JsonLinesFile:
    """Opens the file for each batch, so a tool that renames it (logrotate) needs to tell us nothing."""

    batch = 500

    def __init__(self, context: SinkContext, settings: FileSettings) -> None:
        self._path = settings.path
        if (error := self._append(b"")) is not None:
            raise OrchestratorError(f"cannot write {self._path}: {error}")

    def send(self, events: Sequence[Outgoing]) -> None:
        lines = b"".join(event.body + b"\n" for event in events)
        error: str | None = gevent.get_hub().threadpool.apply(self._append, (lines,))
        if error is not None:
            raise Undelivered(f"cannot write {self._path}: {error}")

    def close(self) -> None:
        pass

    def _append(self, lines: bytes) -> str | None:
        """All of them or nothing; why it could not be done."""
        try:
            with open(self._path, "ab", buffering=0, opener=_private) as file:
                before = file.tell()
                # A disk that fills up takes a part and says so in the count alone.
                if file.write(lines) != len(lines):
                    file.truncate(before)
                    return os.strerror(errno.ENOSPC)
        except OSError as error:
            return error.strerror or str(error)
        return None


def _private(path: str, flags: int) -> int:
    """A new file is for us alone: events say who talks to whom."""
    return os.open(path, flags, 0o600)


SINK = SinkKind("file", "Lines of JSON in a file.", JsonLinesFile, FileSettings)
