"""The one tree of errors. Each carries the answer its catcher needs.

A SIP error knows the status to answer with, an Event Socket error its command, a flow error its place in the file.
Nothing here imports anything of the project.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


class OrchestratorError(Exception):
    """Root of every error this package raises on purpose."""


UNREACHABLE = "cannot be reached"
"""Reason of a request that could not be sent."""

# --- SIP --------------------------------------------------------------------------------------------------------------


class SipError(OrchestratorError):
    """A request cannot be served; `sip_status` and `reason` are the answer (RFC 3261 §21)."""

    def __init__(self, sip_status: int, reason: str) -> None:
        super().__init__(f"{sip_status} {reason}")
        self.sip_status = sip_status
        self.reason = reason


class MalformedMessage(SipError):
    """Octets that are no SIP message, or one we must refuse.

    `sip_status` is the RFC's answer when the message is a request that can be answered (400, 413, 414, 505 …) and 0
    when silence is due (a response, or nothing to answer to).
    """

    def __init__(self, reason: str, sip_status: int = 400) -> None:
        super().__init__(sip_status, reason)


class StoreError(SipError):
    """The location store did not take a write: answered 503 so that the phone tries again.

    `detail` says why, with the file's path: for the operator, never for the phone.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(503, "Service Unavailable")
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


# --- Event Socket -----------------------------------------------------------------------------------------------------


class EslError(OrchestratorError):
    """A FreeSWITCH command or link failed; `command` is the command (never its secrets), empty for the link itself."""

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class EslProtocolError(EslError):
    """Octets on the Event Socket that are no frame; the connection has to be dropped."""


class EslInjection(EslError):
    """A command holds CR, LF or NUL: it is refused before a byte is written."""


class EslTimeout(EslError):
    """No reply within the command's deadline."""


class EslDown(EslError):
    """The link is not up, or went down while the command was pending."""


class EslRefused(EslError):
    """FreeSWITCH refused us: wrong password or access list."""


# --- running ----------------------------------------------------------------------------------------------------------


class ListenError(OrchestratorError):
    """A socket cannot be opened where the configuration says; `address` is what stands there (`udp:0.0.0.0:5060`)."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address
        self.reason = reason


# --- user input: configuration and flows ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message about a user's file. Lines and columns count from 1; `length` is the number of characters
    underlined."""

    file: str
    line: int
    column: int
    code: str
    message: str
    severity: Literal["error", "warning"] = "error"
    help: str = ""
    length: int = 1
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity} {self.code}: {self.message}"


class InputError(OrchestratorError):
    """A user's file cannot be used; `diagnostics` says where and why, one entry per mistake."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(str(d) for d in diagnostics))
        self.diagnostics = tuple(diagnostics)


class StepError(OrchestratorError):
    """A run-time error inside a flow (FLOWLANG §5): what `error.*` shows to `catch` and `on_error`.

    `type` is one of the dotted names of the language (`http.status`, `wait.timeout`, `esl.down`, `user.*` …).
    """

    def __init__(self, type: str, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.type = type
        self.message = message
        self.data = data or {}
        self.step = ""
        self.file = ""
        self.line = 0


class TooManyWatchersError(OrchestratorError):
    """As many as may look at a running server do so."""


# --- in words ---------------------------------------------------------------------------------------------------------


def reason_of(error: BaseException) -> str:
    """What an error of a socket, of TLS or of a client library means, in a few words: "connection refused".

    The error of the system behind it speaks, without its number. What libraries put before it, mostly an address, is
    left out: it may hold secrets.
    """
    last = error
    for last in _behind(error):
        told = getattr(last, "strerror", None)
        if isinstance(last, OSError) and isinstance(told, str) and told:
            return _of_system(last, told)
    if isinstance(error, UnicodeError):
        return "no such name can be looked up"
    if isinstance(last, TimeoutError) and str(last) in ("", "timed out"):
        return "it does not answer in time"
    return (str(last).rpartition(": ")[2].strip() or type(last).__name__)[:200]


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that have led to it."""
    found: BaseException | None = error
    for _ in range(10):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def _of_system(error: OSError, told: str) -> str:
    tls, doubt = getattr(error, "reason", None), getattr(error, "verify_message", None)  # of ssl.SSLError
    if isinstance(tls, str):
        return f"TLS: {tls.replace('_', ' ').lower()}" + (f": {doubt}" if doubt else "")
    return told[:1].lower() + told[1:] if told[1:2].islower() else told
