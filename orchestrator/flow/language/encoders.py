"""How text from outside is written into a place, so that it stays one value there (FLOWLANG §3.1).

Each encoder takes the text as flows see it, decoded once, and gives what the place's grammar reads as that same text.
A `%` is therefore always encoded too: what a caller has escaped twice is never unescaped into a delimiter by whoever
reads the place next. Where no encoding can do it, a StepError `expr.value`, or `esl.argument` for the Event Socket.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from re import ASCII, compile
from typing import NamedTuple
from urllib.parse import quote

from orchestrator.errors import StepError

ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Encoder(NamedTuple):
    """`write` encodes; text made only of the characters of `safe` needs no encoding."""

    write: Callable[[str], str]
    safe: frozenset[str] = frozenset()


def _escaping(safe: str) -> Encoder:
    return Encoder(lambda text: quote(text, safe=safe, errors="replace"), ALNUM | frozenset(safe) | frozenset("-_.~"))


AS_IS = Encoder(lambda text: text)
"""What the engine encodes itself, where it uses the text."""

# --- SIP (RFC 3261 §25.1) ---------------------------------------------------------------------------------------------

_MARKS = "-_.!~*'()"

_USER = _MARKS + "&=+$,/"


def escape_user(text: str, errors: str = "replace") -> str:
    """`text` as the user part of a SIP URI (§19.1.2): it names the same user to every reader of the URI. `errors` as
    for `str.encode`."""
    return quote(text, safe=_USER, errors=errors)


def _written_user(text: str) -> str:
    if not text:
        raise StepError("expr.value", "the user part of a SIP URI is empty")
    return escape_user(text)


USER = Encoder(_written_user, _escaping(_USER).safe)
"""User part: all that its grammar allows as it is, but for `;` and `?`, which readers take for the end of it."""

PARAMETER = _escaping(_MARKS + "[]/:&+$")
"""Value of a URI parameter."""

URI_HEADER = _escaping(_MARKS + "[]/?:+$")
"""Value of a header in a URI."""

_is_host = compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]"
).fullmatch


def _host(text: str) -> str:
    if _is_host(text) is None:
        raise StepError("expr.value", f"{text[:80]!r} is not a host")
    return text


HOST = Encoder(_host, ALNUM | frozenset("-."))


def _address(text: str) -> str:
    """`user@host`, or a host alone; the user part ends at the last `@`."""
    user, at, host = text.rpartition("@")
    return (_written_user(user) + "@" if at else "") + _host(host)


ADDRESS = Encoder(_address)

_is_uri = compile(r"sips?:[^\s<>\"\x00-\x1f\x7f]+|tel:[0-9+*#().-]+(?:;[^\s<>\"]*)?").fullmatch


def _uri(text: str) -> str:
    if not text.isascii() or _is_uri(text) is None:
        raise StepError("expr.value", f"{text[:80]!r} is not a SIP URI")
    return text


URI = Encoder(_uri)
"""The whole URI a request is addressed to; it has been parsed when the request was."""


_is_built = compile(
    r"(?:(?:sips?:)?(?:(?:[A-Za-z0-9\-_.!~*'()&=+$,/;?#]|%[0-9A-Fa-f]{2})+(?::[^@\s<>\"]*)?@)?"
    r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?|tel:[^@\s<>\";?]+)(?:;[^@?\s<>\"]+)*(?:\?[^@\s<>\"]+)?"
).fullmatch


def _built(text: str) -> str:
    if _is_built(text) is None:
        raise StepError("expr.value", f"{text[:80]!r} is not a SIP URI")
    return text


BUILT_URI = Encoder(_built)
"""A URI that text from outside has gone into is read once more: one host, and nothing the flow has not written."""


def _one_line(text: str) -> str:
    """Without control characters: each becomes a blank."""
    return text if text.isprintable() else "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in text)


_PRINTABLE = frozenset(map(chr, range(32, 127)))

LINE = Encoder(_one_line, _PRINTABLE)
"""Header value, reason phrase."""


def _inside_quotes(text: str) -> str:
    return _one_line(text).replace("\\", "\\\\").replace('"', '\\"')


QUOTED = Encoder(_inside_quotes, _PRINTABLE - frozenset('"\\'))
"""What stands between quotes that the flow has written."""

DISPLAY = Encoder(lambda text: f'"{_inside_quotes(text)}"')
"""A display name, or the value of a header parameter."""

# --- URLs (RFC 3986) --------------------------------------------------------------------------------------------------

_query = _escaping("")


def _segment(text: str) -> str:
    if text.strip(".") == "":
        return "%2E" * len(text)
    return _query.write(text)


SEGMENT = Encoder(_segment, ALNUM | frozenset("-_~"))
QUERY = Encoder(_query.write, ALNUM | frozenset("-_.~"))

# --- JSON (RFC 8259) --------------------------------------------------------------------------------------------------

JSON = Encoder(json.dumps)
"""A value: text becomes a string with its quotes, in ASCII."""

JSON_STRING = Encoder(lambda text: json.dumps(text)[1:-1], _PRINTABLE - frozenset('"\\'))
"""What stands between quotes that the flow has written."""

# --- FreeSWITCH -------------------------------------------------------------------------------------------------------

_is_word = compile(r"[A-Za-z0-9_.@+:*#/=~!%?][A-Za-z0-9_.@+:*#/=~!%?-]*", ASCII).fullmatch
_is_strict = compile(r"[A-Za-z0-9_.+*#-]+", ASCII).fullmatch


def _refused(text: str) -> StepError:
    return StepError("esl.argument", f"{text[:80]!r} may not be put into a FreeSWITCH command")


def _word(text: str) -> str:
    if _is_word(text) is None:
        raise _refused(text)
    return text


WORD = Encoder(_word, ALNUM | frozenset("_.@+:*#/=~!%?"))
"""One argument: numbers, uuids, addresses as they are. Whatever splits, quotes, nests or expands is refused."""

_EXPANDED = frozenset("$`{}[]|")


def _quoted_word(text: str) -> str:
    if _is_word(text) is not None:
        return text
    if not text or not text.isprintable() or _EXPANDED & set(text):
        raise _refused(text)
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


QUOTED_WORD = Encoder(_quoted_word, WORD.safe)
"""One argument of a command that splits with switch_separate_string, once."""


def _strict(text: str) -> str:
    if _is_strict(text) is None:
        raise _refused(text)
    return text


DIALLED = Encoder(_strict, ALNUM | frozenset("_.+*#"))
"""A part of a dial string, or of the arguments of `&application(…)`: it is parsed more than once."""


def _refuse(text: str) -> str:
    raise _refused(text)


SHELL = Encoder(_refuse, ALNUM | frozenset("_"))
"""What a program or a script reads; nothing but letters and digits is the same to all of them."""


def _value(text: str) -> str:
    if not text.isprintable() or "$" in text or "`" in text or "\\" in text:
        raise _refused(text)
    return text


VARIABLE = Encoder(_value, _PRINTABLE - frozenset("$`\\"))
"""The value behind `name=` of the application set: it goes to the end of the line, and only `$` is expanded."""


def _words(text: str) -> str:
    """Words with single blanks between, as `originate_variables` quotes them."""
    for word in text.split(" "):
        _word(word)
    return text


WORDS = Encoder(_words, WORD.safe)


_is_file = compile(r"[A-Za-z0-9._-]+", ASCII).fullmatch


def _file(text: str) -> str:
    if _is_file(text) is None or text.strip(".") == "":
        raise StepError("expr.value", f"{text[:80]!r} is not part of a file name (letters, digits, . _ -)")
    return text


FILE = Encoder(_file, ALNUM | frozenset("_-"))

# --- log --------------------------------------------------------------------------------------------------------------


def _visible(text: str) -> str:
    """Control characters, and those that turn the direction of writing, as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


LOG = Encoder(_visible, _PRINTABLE)
