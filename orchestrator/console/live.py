"""What follows by itself: one renderer for all who look at the same thing.

A *topic* is something that is looked at: the list of calls with one search, one call, the overview. While it has
viewers, one greenlet draws its fragments, again when it is told that something has changed and otherwise once in a
while, and keeps those that differ from before. A viewer is a stream of Server-Sent Events that asks for what has
changed since the version it has; all viewers of one version get the same octets. So fifty viewers cost one drawing, and
a viewer that does not read costs nothing: it has no queue, and gets the newest state when it reads again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import gevent
from gevent.event import Event
from loguru import logger

QUIET: Final = 15.0
"""Seconds after which a stream without news says that it is there."""
RETRY: Final = 2000
"""Milliseconds after which a browser connects again."""
LINGER: Final = 5.0
"""Seconds that a topic without viewers is kept: a page that is loaded again comes back at once."""

Fragments = Mapping[str, str]
"""Id of an element → its new content. A name that begins with `@` is that of an event with this text."""
Render = Callable[[], Fragments | None]
"""Draws; None where there is nothing to show any more. It may let other greenlets run."""
Watch = Callable[[Callable[[], None]], Callable[[], object]]
"""`watch(touch)` has `touch()` called whenever something is new; returns what ends that."""


class Full(Exception):
    """There are as many topics as may be."""


class Topic:
    """One thing that is looked at."""

    def __init__(
        self, render: Render, every: float, throttle: float, ended: Callable[[], object], watch: Watch | None = None
    ) -> None:
        self._render = render
        self._every = every
        self._throttle = throttle
        self._ended = ended
        self._versions: dict[str, int] = {}
        self._fragments: dict[str, str] = {}
        self._messages: dict[int, bytes] = {}
        self._news = Event()
        self._changed = Event()
        self.version = 0
        self.viewers = 0
        self.renders = 0
        """How often it was drawn."""
        self.gone = False
        """There is nothing to show any more."""
        self._unwatch = watch(self.touch) if watch is not None else None
        self._greenlet = gevent.spawn(self._run)

    def touch(self) -> None:
        """Something has changed: draw again, soon. Called from anywhere within the loop; costs nothing."""
        self._changed.set()

    def follow(self) -> Iterator[bytes]:
        """The stream of one viewer."""
        self.viewers += 1
        try:
            yield f"retry: {RETRY}\n\n".encode()
            seen = 0
            while True:
                if seen != self.version:
                    message, seen = self.message(seen), self.version
                    yield message
                elif self.gone:
                    yield b"event: gone\ndata: -\n\n"
                    return
                elif not self._news.wait(QUIET):
                    yield b": still here\n\n"
        finally:
            self.viewers -= 1

    def message(self, seen: int) -> bytes:
        """What has changed since version `seen`, as one or more messages; the same octets for all who ask alike."""
        made = self._messages.get(seen)
        if made is None:
            changed = {name: self._fragments[name] for name, at in self._versions.items() if at > seen}
            made = self._messages[seen] = encode(changed)
        return made

    def stop(self) -> None:
        self._greenlet.kill(block=False)
        self._close()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        alone = 0.0
        try:
            while alone < LINGER:
                self._changed.clear()
                self._draw()
                if self.gone:
                    break
                gevent.sleep(self._throttle)
                self._changed.wait(max(0.0, self._every - self._throttle))
                alone = 0.0 if self.viewers else alone + self._every
        finally:
            self._close()

    def _close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        self.gone = True
        self._ended()
        self._tell()

    def _draw(self) -> None:
        try:
            drawn = self._render()
        except Exception:
            logger.exception("console_fault")
            return
        self.renders += 1
        if drawn is None:
            self.gone = True
            return
        changed = [name for name, text in drawn.items() if self._fragments.get(name) != text]
        if changed:
            self.version += 1
            self._versions |= dict.fromkeys(changed, self.version)
            self._fragments = dict(drawn)
            self._versions = {name: at for name, at in self._versions.items() if name in drawn}
            self._messages = {}
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, Event()
        news.set()


class Live:
    """The topics of a console, by name."""

    def __init__(self, most: int = 100) -> None:
        """`most` topics at a time."""
        self._most = most
        self.topics: dict[str, Topic] = {}

    def topic(
        self, name: str, render: Render, watch: Watch | None = None, every: float = 1.0, throttle: float = 0.2
    ) -> Topic:
        """That of this name; a new one is drawn by `render` each `every` seconds, and after `touch`, but not more often
        than each `throttle` seconds.

        Raises:
            Full: no room for another one.
        """
        found = self.topics.get(name)
        if found is not None and not found.gone:
            return found
        if len(self.topics) >= self._most:
            raise Full
        made = self.topics[name] = Topic(render, every, throttle, lambda: self._forget(name, made), watch)
        return made

    def close(self) -> None:
        for topic in list(self.topics.values()):
            topic.stop()

    def _forget(self, name: str, topic: Topic) -> None:
        if self.topics.get(name) is topic:
            del self.topics[name]


def encode(changed: Fragments) -> bytes:
    """Server-Sent Events: one with all fragments for htmx, one for each event of its own."""
    events = [(name[1:], text) for name, text in changed.items() if name.startswith("@")]
    partials = "".join(
        f'<hx-partial hx-target="#{name}" hx-swap="innerMorph">{text}</hx-partial>'
        for name, text in changed.items()
        if not name.startswith("@")
    )
    said = [f"event: {name}\n{_data(text)}\n\n" for name, text in events]
    if partials:
        said.append(f"{_data(partials)}\n\n")
    return "".join(said).encode("utf-8", "replace")


def _data(text: str) -> str:
    """The lines of a message. CR ends a line as LF does."""
    return "\n".join(f"data: {line}" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
