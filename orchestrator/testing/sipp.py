"""SIPp as a caller or callee that does not know us: runs a scenario unmodified and reads what SIPp counted.

    with Sipp(folder / "uas.xml", folder=tmp_path, calls=1000, port=5070) as callee:
        caller = run_sipp(folder / "uac.xml", "127.0.0.1:5060", folder=tmp_path, calls=1000, rate=100)
        assert caller.clean, caller.problems
        assert callee.wait(10).clean

SIPp is judged by its statistics file, not by its exit status alone: a call that ended well after a message nobody
expected is a finding, too. Each run is bounded in time by SIPp itself (`-timeout`) and by whoever waits for it.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_UNEXPECTED = ("FailedUnexpectedMessage(C)", "OutOfCallMsgs(C)", "DeadCallMsgs(C)")
"""Columns that count messages the scenario has no place for: inside a call, of no call, of a call that is over."""

_SHOWN = 600
"""Characters of the error log that a result keeps: the first thing that went wrong, the rest follows from it."""


def sipp_path() -> str | None:
    """Where SIPp is installed, None when it is not."""
    return shutil.which("sipp")


@dataclass(frozen=True, slots=True)
class SippResult:
    """What one run of SIPp has counted, calls and messages."""

    status: int
    """Exit status: 0 when all calls were successful."""
    calls: int
    """Calls asked for; `successful` and `failed` are those that ended."""
    successful: int
    failed: int
    unexpected: int
    retransmissions: int
    log: str = field(default="", repr=False)
    """Beginning of SIPp's error log: the first unexpected message and what was expected instead."""

    @property
    def clean(self) -> bool:
        """All calls ended well, and no message came that the scenario does not expect."""
        return self.status == 0 and self.successful == self.calls and not (self.failed or self.unexpected)

    @property
    def problems(self) -> str:
        """For the message of an assertion."""
        return f"{self}\n{self.log}"


class Sipp:
    """A running SIPp; a context manager that ends it. `wait` gives the result.

    Args:
        scenario: the XML file.
        remote: `host:port` of the server; '' for a scenario that waits for requests.
        folder: gets the statistics and error logs; one folder per run.
        calls: SIPp exits after so many.
        rate: calls per second, for a scenario that makes them.
        host: local IP address. One of 127/8 that nobody else uses keeps other traffic of a busy machine away.
        port: local UDP port; 0 lets SIPp choose.
        service: user called, `[service]` in the scenario.
        keys: further `[name]`s of the scenario.
        login: user and password of its `[authentication]`.
        transport: SIPp's `-t`: `u1` for UDP, `t1` for TCP with one connection for all calls, `tn` with one for each.
        seconds: SIPp gives up after that time.
        more: further arguments of SIPp.
    """

    def __init__(
        self,
        scenario: Path,
        remote: str = "",
        *,
        folder: Path,
        calls: int = 1,
        rate: int = 10,
        host: str = "127.0.0.1",
        port: int = 0,
        service: str = "bob",
        keys: dict[str, str] | None = None,
        login: tuple[str, str] | None = None,
        transport: str = "u1",
        seconds: int = 60,
        more: Sequence[str] = (),
    ) -> None:
        self.calls = calls
        self._statistics = folder / f"{scenario.stem}-{port}.csv"
        self._errors = folder / f"{scenario.stem}-{port}.log"
        arguments = [
            *("-sf", str(scenario), "-i", host, "-s", service, "-m", str(calls), "-r", str(rate), "-t", transport),
            *("-trace_stat", "-stf", str(self._statistics), "-fd", "1", "-trace_err", "-error_file", str(self._errors)),
            *("-timeout", f"{seconds}s", "-timeout_error", "-buff_size", str(4 * 2**20), "-nostdin"),
        ]
        if port:
            arguments += ["-p", str(port)]
        arguments += more
        for name, value in (keys or {}).items():
            arguments += ["-key", name, value]
        if login is not None:
            arguments += ["-au", login[0], "-ap", login[1]]
        self._statistics.unlink(missing_ok=True)
        self._errors.unlink(missing_ok=True)
        self.process = subprocess.Popen(  # noqa: S603  SIPp, with arguments of ours
            [sipp_path() or "sipp", *arguments, *([remote] if remote else [])],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self, seconds: float) -> SippResult:
        """The result of a run that ends within `seconds`.

        Raises:
            subprocess.TimeoutExpired: it does not.
        """
        status = self.process.wait(seconds)
        counted = self._last_row()
        return SippResult(
            status,
            self.calls,
            counted.get("SuccessfulCall(C)", 0),
            counted.get("FailedCall(C)", 0),
            sum(counted.get(name, 0) for name in _UNEXPECTED),
            counted.get("Retransmissions(C)", 0),
            self._errors.read_text(errors="replace")[:_SHOWN] if self._errors.exists() else "",
        )

    def _last_row(self) -> dict[str, int]:
        """The newest line of the statistics; SIPp writes one per second and one at its end."""
        if not self._statistics.exists():
            return {}
        with self._statistics.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        last = rows[-1] if rows else {}
        return {name: int(value) for name, value in last.items() if name and value and value.isdigit()}

    def close(self) -> None:
        """End it where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_sipp(
    scenario: Path,
    remote: str,
    *,
    folder: Path,
    calls: int = 1,
    rate: int = 10,
    host: str = "127.0.0.1",
    service: str = "bob",
    keys: dict[str, str] | None = None,
    login: tuple[str, str] | None = None,
    transport: str = "u1",
    seconds: int = 60,
) -> SippResult:
    """Run a scenario that makes calls to its end; see `Sipp`. Raises subprocess.TimeoutExpired."""
    with Sipp(
        scenario,
        remote,
        folder=folder,
        calls=calls,
        rate=rate,
        host=host,
        service=service,
        keys=keys,
        login=login,
        transport=transport,
        seconds=seconds,
    ) as sipp:
        return sipp.wait(seconds + 10)
