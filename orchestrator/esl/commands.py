"""What we write to an Event Socket, and what we refuse to write.

A command is a line, optional `Name: value` lines and an empty line (mod_event_socket.c, read_packet). A value with a
line feed in it would therefore become a header or, after two, a second command: `encode` refuses CR, LF and NUL
everywhere, and every command goes through it.

That is not enough for values a stranger wrote. FreeSWITCH splits arguments at spaces and commas, strips quotes and
backslashes once per level of parsing, and expands `${…}` - `${system(…)}` runs a program - when it executes an
application. How often a value is parsed depends on the command, so no escaping is right everywhere: `safe_argument`
lets through what no level interprets and refuses the rest, and text for one known level is quoted by
`quote_argument`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from orchestrator.errors import EslInjection

MAX_COMMAND = 10 * 1024 * 1024
"""Octets of the command and its headers; FreeSWITCH drops a connection that sends more (mod_event_socket.c)."""
MAX_BODY = 16 * 1024 * 1024
"""Octets of a command's body, FreeSWITCH's limit too."""

_EVENT_NAMES = """
    ALL CUSTOM CLONE CHANNEL_CREATE CHANNEL_DESTROY CHANNEL_STATE CHANNEL_CALLSTATE CHANNEL_ANSWER
    CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE CHANNEL_HOLD
    CHANNEL_UNHOLD CHANNEL_BRIDGE CHANNEL_UNBRIDGE CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_OUTGOING
    CHANNEL_PARK CHANNEL_UNPARK CHANNEL_APPLICATION CHANNEL_ORIGINATE CHANNEL_UUID CHANNEL_DATA API LOG
    INBOUND_CHAN OUTBOUND_CHAN STARTUP SHUTDOWN SHUTDOWN_REQUESTED PUBLISH UNPUBLISH TALK NOTALK SESSION_CRASH
    SESSION_HEARTBEAT MODULE_LOAD MODULE_UNLOAD DTMF MESSAGE MESSAGE_WAITING MESSAGE_QUERY PRESENCE_IN
    PRESENCE_OUT PRESENCE_PROBE NOTIFY NOTIFY_IN ROSTER CODEC BACKGROUND_JOB DETECTED_SPEECH DETECTED_TONE
    PRIVATE_COMMAND HEARTBEAT TRAP ADD_SCHEDULE DEL_SCHEDULE EXE_SCHEDULE RE_SCHEDULE RELOADXML PHONE_FEATURE
    PHONE_FEATURE_SUBSCRIBE SEND_MESSAGE RECV_MESSAGE REQUEST_PARAMS GENERAL COMMAND CLIENT_DISCONNECTED
    SERVER_DISCONNECTED SEND_INFO RECV_INFO RECV_RTCP_MESSAGE SEND_RTCP_MESSAGE CALL_SECURE CALL_UPDATE
    CALL_DETAIL CALL_SETUP_REQ CALL_SETUP_RESULT NAT RECORD_START RECORD_STOP PLAYBACK_START PLAYBACK_STOP
    FAILURE SOCKET_DATA MEDIA_BUG_START MEDIA_BUG_STOP CONFERENCE_DATA CONFERENCE_DATA_QUERY DEVICE_STATE TEXT
"""
EVENT_NAMES = frozenset(_EVENT_NAMES.split())
"""The event types of FreeSWITCH 1.10 (switch_event.c, EVENT_NAMES); any other name can only be a CUSTOM subclass."""

_BREAKS = re.compile(r"[\r\n\0]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_SAFE = re.compile(r"[A-Za-z0-9_.@+:][A-Za-z0-9_.@+:-]*")
_UUID = re.compile(r"[A-Za-z0-9_.@+:~!*/?=-]+")
_SUBCLASS = re.compile(r"[A-Za-z0-9_.:-]+")


def encode(command: str, headers: Mapping[str, str] | None = None, body: str | bytes | None = None) -> bytes:
    """The octets of one command. Raises EslInjection for CR, LF or NUL anywhere but in the body, and for an empty
    command.
    """
    if not command.strip():
        raise EslInjection("empty command")
    lines = [_line(command, command)]
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name):
            raise EslInjection(f"{name!r} is not a header name", _verb(command))
        lines.append(f"{name}: {_line(value, command)}")
    content = b""
    if body is not None:
        content = body if isinstance(body, bytes) else _octets(body, command)
        if len(content) > MAX_BODY:
            raise EslInjection(f"body of more than {MAX_BODY} octets", _verb(command))
        lines.append(f"Content-Length: {len(content)}")
    head = _octets("\n".join(lines), command) + b"\n\n"
    if len(head) > MAX_COMMAND:
        raise EslInjection(f"command of more than {MAX_COMMAND} octets", _verb(command))
    return head + content


def api(command: str) -> bytes:
    """Run an API command and get its output as the reply. FreeSWITCH does nothing else on the connection meanwhile."""
    return encode(f"api {command}")


def bgapi(command: str, job_uuid: str) -> bytes:
    """Run an API command in its own thread; the output comes as BACKGROUND_JOB with this Job-UUID.

    We choose the id, so that whoever waits for the event can be registered before the command is written.
    """
    return encode(f"bgapi {command}", {"Job-UUID": job_uuid})


def sendmsg_execute(uuid: str, app: str, args: str = "", event_uuid: str = "", lock: bool = False) -> bytes:
    """Queue a dialplan application on a channel. The reply only says "queued".

    `event_uuid` comes back as Application-UUID of CHANNEL_EXECUTE_COMPLETE; `lock` makes the channel finish it before
    it takes the next message.
    """
    headers = {"call-command": "execute", "execute-app-name": safe_argument(app)}
    if args:
        headers["execute-app-arg"] = args
    if event_uuid:
        headers["event-uuid"] = safe_argument(event_uuid)
    if lock:
        headers["event-lock"] = "true"
    return encode(f"sendmsg {safe_uuid(uuid)}", headers)


def safe_argument(value: str) -> str:
    """`value` when no parser of FreeSWITCH reads anything into it: letters, digits and `_ . @ + : -`, no leading `-`.

    For what comes from SIP (numbers, uuids, Call-IDs, user parts). Raises EslInjection for everything else.
    """
    if not _SAFE.fullmatch(value):
        raise EslInjection(f"{value[:80]!r} may not be put into a FreeSWITCH command")
    return value


def safe_uuid(uuid: str) -> str:
    """A channel's uuid as an argument of its own: `safe_argument`, and what else Call-IDs of phones are made of.

    With `inbound-use-callid-as-uuid` it is a Call-ID, and some phones put `~`, `=` or a leading `-` into those. A uuid
    is only ever compared with others, so that is harmless; quotes, spaces, `$`, braces and commas stay refused. Raises
    EslInjection.
    """
    if not _UUID.fullmatch(uuid):
        raise EslInjection(f"{uuid[:80]!r} may not be put into a FreeSWITCH command")
    return uuid


def quote_argument(text: str) -> str:
    """`text` as one argument of an API command or application that splits at spaces once (switch_separate_string).

    Raises EslInjection for line breaks and for `${`, which FreeSWITCH would expand whatever the quotes.
    """
    if _BREAKS.search(text) or "${" in text:
        raise EslInjection(f"{text[:80]!r} may not be put into a FreeSWITCH command")
    if _SAFE.fullmatch(text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def originate_variables(variables: Mapping[str, str]) -> str:
    """`{a=1,b='x y'}` for the front of a dial string, '' for no variables.

    A dial string is parsed several times (spaces, braces, commas, `|`, `:_:`), each time losing a level of quotes: a
    value may only be made of words that `safe_argument` accepts, with single spaces between. Raises EslInjection for
    others.
    """
    pairs = []
    for name, value in variables.items():
        if not _HEADER_NAME.fullmatch(name):
            raise EslInjection(f"{name[:80]!r} is not a variable name")
        words = [safe_argument(word) for word in value.split(" ")]
        pairs.append(f"{name}='{value}'" if len(words) > 1 else f"{name}={value}")
    return "{" + ",".join(pairs) + "}" if pairs else ""


def esl_name(name: str) -> str:
    """What to subscribe to for a name a flow uses: `DTMF` stays, `avmd::beep` becomes `CUSTOM avmd::beep`."""
    return name if name in EVENT_NAMES or name.startswith("CUSTOM ") else f"CUSTOM {name}"


def subscriptions(esl_names: Iterable[str]) -> list[str]:
    """The commands that subscribe to these names, `CUSTOM subclass` ones included; sorted, so equal sets give equal
    commands.

    Subclasses have a command of their own: after the word CUSTOM FreeSWITCH takes every word for one.
    """
    plain: set[str] = set()
    custom: set[str] = set()
    for name in esl_names:
        word, _, subclass = name.partition(" ")
        if word == "CUSTOM" and _SUBCLASS.fullmatch(subclass):
            custom.add(subclass)
        elif word in EVENT_NAMES and not subclass and word != "CUSTOM":
            plain.add(word)
        else:
            raise EslInjection(f"{name[:80]!r} is not an event of FreeSWITCH", "event")
    commands = [f"event plain {' '.join(sorted(plain))}"] if plain else []
    return commands + ([f"event plain CUSTOM {' '.join(sorted(custom))}"] if custom else [])


def _line(text: str, command: str) -> str:
    if _BREAKS.search(text):
        raise EslInjection("a command may not hold CR, LF or NUL", _verb(command))
    return text


def _octets(text: str, command: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise EslInjection("a command must be valid Unicode", _verb(command)) from None


def _verb(command: str) -> str:
    """The first word: enough to say which command it was, never a password."""
    return command.split(None, 1)[0][:40] if command.strip() else ""
