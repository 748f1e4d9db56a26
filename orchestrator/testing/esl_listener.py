"""What one Event Socket listener of FreeSWITCH lets through: formats, event names, filters (mod_event_socket.c).

The rules are easy to get wrong, and a double that is kinder than the server hides mistakes: an event without the
filtered header is dropped; negative filters alone drop everything; `/re/` counts only at the very start of a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from orchestrator.esl.codec import EslEvent
from orchestrator.esl.commands import EVENT_NAMES

LOG_LEVELS = ("console", "alert", "crit", "err", "warning", "notice", "info", "debug")
NO_KEYWORDS = "-ERR no keywords supplied"


@dataclass(slots=True)
class Listener:
    """The state behind one connection. Each method takes the words after its command and returns the Reply-Text."""

    format: str = ""
    """`plain` or `json`; '' as long as no events were asked for."""
    names: set[str] = field(default_factory=set)
    subclasses: set[str] = field(default_factory=set)
    filters: list[tuple[str, str]] = field(default_factory=list)
    log_level: int = -1
    """Most detailed level of the log it has asked for; -1 for none."""

    def event(self, words: list[str]) -> str:
        """`event plain DTMF CUSTOM avmd::beep …`: adds to what is there."""
        known, custom = self._keywords(words)
        style = words[0].lower() if words and words[0].lower() in ("plain", "json", "xml") else self.format or "plain"
        if not known:
            return NO_KEYWORDS
        self.format = style
        self.names |= known
        self.subclasses |= custom
        return f"+OK event listener enabled {style}"

    def nixevent(self, words: list[str]) -> str:
        """`nixevent DTMF CUSTOM avmd::beep`: takes away; naming one leaves the others of an ALL."""
        known, custom = self._keywords(words)
        if not known:
            return NO_KEYWORDS
        if "ALL" in self.names:
            self.names = set(EVENT_NAMES - {"ALL"})
        self.names -= EVENT_NAMES if "ALL" in known else known - {"CUSTOM"}
        self.subclasses -= custom
        return "+OK events nixed"

    def noevents(self) -> str:
        if not self.format:
            return "-ERR not listening for events"
        self.format = ""
        self.names.clear()
        self.subclasses.clear()
        return "+OK no longer listening for events"

    def filter(self, words: list[str]) -> str:
        """`filter Header value`, `filter delete Header [value]`, `filter delete all`."""
        if words[:1] == ["delete"] and len(words) > 1:
            name, value = words[1], " ".join(words[2:])
            if name.lower() == "all":
                self.filters.clear()
            else:
                self.filters = [f for f in self.filters if f[0] != name.lower() or (value and f[1] != value)]
            return f"+OK filter deleted. [{name}][{value}]"
        if len(words) < 2:
            return "-ERR invalid syntax"
        name, value = words[0], " ".join(words[1:])
        self.filters.append((name.lower(), value))
        return f"+OK filter added. [{name}]=[{value}]"

    def log(self, words: list[str]) -> str:
        """`log crit`, `log 2`; without a level everything."""
        word = words[0].lower() if words else ""
        names = (*LOG_LEVELS, word)
        level = int(word) if word.isdigit() else names.index(word or LOG_LEVELS[-1])
        if level >= len(LOG_LEVELS):
            return "-ERR invalid log level"
        self.log_level = level
        return f"+OK log level {word} [{level}]"

    def nolog(self) -> str:
        if self.log_level < 0:
            return "-ERR not loging"  # as FreeSWITCH spells it
        self.log_level = -1
        return "+OK no longer logging"

    def wants(self, event: EslEvent) -> bool:
        """Whether this connection gets the event."""
        return bool(self.format) and self._subscribed(event) and self._passes(event)

    def covers(self, other: Listener) -> bool:
        """Whether it has subscribed to all that the other has."""
        return bool(self.format) and self.names >= other.names and self.subclasses >= other.subclasses

    def _keywords(self, words: list[str]) -> tuple[set[str], set[str]]:
        """Known event names, and the subclasses: every word after CUSTOM is one."""
        known: set[str] = set()
        for position, word in enumerate(words):
            name = word.upper()
            if name == "CUSTOM":
                return known | {name}, set(words[position + 1 :])
            if name in EVENT_NAMES:
                known.add(name)
        return known, set()

    def _subscribed(self, event: EslEvent) -> bool:
        if "ALL" in self.names:
            return True
        return event.subclass in self.subclasses if event.name == "CUSTOM" else event.name in self.names

    def _passes(self, event: EslEvent) -> bool:
        """The loop of event_handler(): the first positive match lets it through unless a negative one follows."""
        send = not self.filters
        for name, value in self.filters:
            have = event.find(name) if name in event.headers else _any_case(event, name)
            pattern = value.lstrip("+- ")
            positive = "-" not in value[: len(value) - len(pattern)]
            if have is None or (send and positive) or not pattern:
                continue
            if value.startswith("/"):
                hit = re.search(value.strip("/"), have) is not None
            else:
                hit = have.lower() == pattern.lower()
            if hit and not positive:
                return False
            send = send or hit
        return send


def _any_case(event: EslEvent, lower: str) -> str | None:
    """A header looked up as FreeSWITCH does, whatever the case of its name."""
    return next((value for name, value in event.headers.items() if name.lower() == lower), None)
