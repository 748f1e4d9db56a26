"""One connection without its socket: a table of states and inputs, and the clock is the caller's.

    connecting ── connected ──► handshaking ── ready ──► open ── end ──► answering
                                                          │                  │
                                            close, broken, time-out      time-out
                                                          ▼                  │
                                                       closing ◄─────────────┘        every state ── reset ──► closed

Who holds the socket feeds `step` and `receive`, carries away `messages` (to the core) and `outbox` (to the peer), and
asks `deadline` when the next time-out is due. Whatever comes in whatever state ends in one of them; every state but the
last has a deadline.

*open* is one state with three deadlines: a message that has begun has to come to its end, what we send has to be taken,
and a peer that is silent for long is gone.

A message that could not be sent is never silently lost: what is left when the connection ends comes back by `unsent`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from orchestrator.errors import MalformedMessage
from orchestrator.runtime.streams.layers import Cipher, Framing
from orchestrator.runtime.streams.limits import ANSWER_TIME, LINGER, StreamLimits
from orchestrator.sip.points import Hop

CONNECTING: Final = "connecting"
HANDSHAKING: Final = "handshaking"
OPEN: Final = "open"
ANSWERING: Final = "answering"
CLOSING: Final = "closing"
CLOSED: Final = "closed"

NEVER: Final = float("inf")
UNANSWERED: Final = 3
"""Intervals of pings after which a peer that says nothing is gone."""


class Piece(NamedTuple):
    """Octets to be written; `message` is what they carry, b'' for what the layers say, `since` when it was sent."""

    octets: bytes
    message: bytes
    hop: Hop | None
    since: float


class Stream:
    """One connection. `number` is its `Hop.connection`; `name` whom we have connected to, None where it came to us."""

    __slots__ = (
        "farewell_due", "hop", "limits", "messages", "name", "outbox", "size", "state", "unsent", "why",
        "_after_end", "_begun", "_born", "_cipher", "_ending", "_framing", "_heard", "_pinged", "_queue", "_served",
        "_shakes", "_since",
    )  # fmt: skip

    def __init__(
        self,
        limits: StreamLimits,
        framing: Framing,
        cipher: Cipher | None,
        hop: Hop,
        now: float,
        name: str | None = None,
    ) -> None:
        self.limits = limits
        self.hop = hop
        self.state = HANDSHAKING if name is None else CONNECTING
        self.messages: list[bytes] = []
        """Whole ones, for the core, oldest first."""
        self.outbox: list[Piece] = []
        self.size = 0
        """Octets that wait to be written: messages, and what the layers say."""
        self.unsent: list[Piece] = []
        """What will never be written; the caller empties it."""
        self.why = ""
        """What ended it, '' while it lives and where nothing was wrong."""
        self.farewell_due = False
        """Our side is to be shut once `outbox` is empty."""
        self.name = name
        self._framing = framing
        self._cipher = cipher
        self._ending = ""
        """The input that follows when all messages have been carried away."""
        self._after_end: list[Piece] = []
        """What was sent to a peer that has said that it sends nothing more; perhaps it does not listen either."""
        self._queue: list[Piece] = []
        """Messages that wait for the handshake."""
        self._born = self._since = now
        """When the connection, and its state, began."""
        self._heard = now
        self._begun = 0.0
        """When the message that is not whole yet began."""
        self._pinged = 0.0
        """When we have last asked whether the peer is still there."""
        self._shakes = not framing.open
        """The framing has a handshake: who has finished it is no stranger that only holds a connection."""
        self._served = False
        """A message has come."""

    # --- inputs -------------------------------------------------------------------------------------------------------

    def step(self, what: str, now: float) -> bool:
        """Feed one input of the table. False when it means nothing in this state."""
        entry = TABLE[self.state].get(what)
        if entry is None:
            return False
        state, why, effects = entry
        if state is not self.state:
            self.state, self._since = state, now
        if why and not self.why:
            self.why = why
        for effect in effects:
            effect(self, now)
        return True

    def receive(self, octets: bytes, now: float) -> None:
        """Octets of the peer."""
        if self.state is CLOSING or self.state is CLOSED or self._ending:
            return
        self._heard = now
        cipher, framing = self._cipher, self._framing
        if cipher is not None:
            octets = cipher.receive(octets)
            self._push(cipher.take(), now)
            if cipher.ended and not octets:
                self._note_end(cipher.why)
                return
            if not cipher.open or (self.state is HANDSHAKING and self._is_other(cipher)):
                return
        if octets:
            was_unfinished = framing.unfinished
            found = framing.receive(octets)
            if found:
                self.messages += found
                self._served = True
            if framing.unfinished and (found or not was_unfinished):
                self._begun = now
        self._pack(framing.take(), now)
        self._bound(now)
        if framing.ended:
            self._note_end(framing.why)
        elif cipher is not None and cipher.ended:
            self._note_end(cipher.why)
        elif self.state is HANDSHAKING:
            self._look(now)

    def finish(self, now: float) -> None:
        """To be called when `messages` have been carried away: now the end that came behind them, if one did."""
        ending, self._ending = self._ending, ""
        if ending:
            self.step(ending, now)

    @property
    def read_size(self) -> int:
        """Octets to read at a time; the next ones wait until the other connections have had their turn."""
        return self._framing.read_size

    @property
    def malformed(self) -> tuple[bytes, MalformedMessage] | None:
        """What came behind the messages, when that is the end of the stream but may be owed an answer."""
        return self._framing.malformed if self._ending else None

    def hear_end(self, now: float) -> None:
        """The peer sends nothing more."""
        if self.state is OPEN and self._framing.unfinished and not self._ending:
            self._give_up("end in a message")
        else:
            self.step("end", now)

    def _give_up(self, ending: str) -> None:
        self._framing.give_up()
        self._ending = ending

    def send(self, message: bytes, hop: Hop, now: float) -> None:
        """One message for the peer; what cannot be sent any more is `unsent` at once."""
        state = self.state
        if state is OPEN or state is ANSWERING:
            piece = Piece(self._wrap(self._framing.send(message)), message, hop, now)
            self._put(piece)
            if state is ANSWERING:
                self._after_end.append(piece)
        elif state is CLOSING or state is CLOSED:
            self.unsent.append(Piece(b"", message, hop, now))
            return
        else:
            self._queue.append(Piece(message, message, hop, now))
            self.size += len(message)
        self._bound(now)

    def octets_of(self, message: bytes) -> bytes:
        """What carries a message that may be written at once: nothing waits before it. b'' when it has to be `send`."""
        if self.state is not OPEN or self.outbox:
            return b""
        octets = self._framing.send(message)
        return octets if self._cipher is None else self._cipher.send(octets)

    def keep(self, octets: bytes, message: bytes, hop: Hop, now: float) -> None:
        """The kernel did not take these octets of it."""
        self._put(Piece(octets, message, hop, now))
        self._bound(now)

    def written(self, octets: int, now: float) -> None:
        """The kernel has taken so many octets of the outbox."""
        outbox = self.outbox
        self.size -= octets
        while octets:
            piece = outbox[0]
            if octets < len(piece.octets):
                outbox[0] = piece._replace(octets=piece.octets[octets:])
                break
            octets -= len(piece.octets)
            del outbox[0]

    def time_out(self, now: float) -> None:
        """The deadline has passed, perhaps."""
        if now < self.deadline:
            return
        if self.state is OPEN:
            if self.outbox and now >= self.outbox[0].since + self.limits.write:
                self.step("not taken", now)
            elif self._framing.unfinished and now >= self._begun + self.limits.message:
                self._give_up("half a message")
            elif self._framing.ping_every and now < self._silent_at:
                self._pinged = now
                self._pack(self._framing.ping(), now)
            else:
                self.step("silent", now)
        else:
            self.step("time-out", now)

    # --- what is asked ------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `time_out` is to be called, in seconds of the caller's clock; it may move back and forth."""
        limits, state = self.limits, self.state
        if state is OPEN:
            due, every = self._silent_at, self._framing.ping_every
            if every:
                due = min(due, max(self._heard, self._pinged) + every)
            if self._framing.unfinished:
                due = min(due, self._begun + limits.message)
            if self.outbox:
                due = min(due, self.outbox[0].since + limits.write)
            return due
        if state is CLOSED:
            return NEVER
        if state is ANSWERING:
            return self._heard + ANSWER_TIME
        return self._since + _LASTS[state](limits)

    @property
    def _silent_at(self) -> float:
        """When an open connection has been silent for too long."""
        if not self._served and self.name is None:
            return self._born + self.limits.handshake
        every = self._framing.ping_every
        return self._heard + (min(self.limits.idle, UNANSWERED * every) if every else self.limits.idle)

    @property
    def held(self) -> int:
        """Octets of messages that it keeps, in both directions."""
        return self.size + self._framing.held

    @property
    def at_ease(self) -> bool:
        """Open, and its deadline is the one of silence, which only moves away."""
        return self.state is OPEN and not self.outbox and not self._framing.unfinished

    @property
    def usable(self) -> bool:
        """It may be chosen for what has no connection yet."""
        return self.state is OPEN or self.state is CONNECTING or self.state is HANDSHAKING

    @property
    def proved(self) -> bool:
        """The peer has shown who it is: a certificate that we trust."""
        return self._cipher is not None and self._cipher.proved

    def is_peer(self, name: str) -> bool:
        """Whether it is open, and the peer has proved to have this name."""
        return self.state is OPEN and self._cipher is not None and self._cipher.proved and not self._cipher.admits(name)

    def __repr__(self) -> str:
        return f"<Stream {self.hop.connection} {self.state} {self.hop.host}:{self.hop.port}>"

    # --- inside -------------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Whether the handshakes are done; what they say is sent."""
        cipher, framing = self._cipher, self._framing
        if cipher is not None:
            self._push(cipher.take(), now)
            if not cipher.open or self._is_other(cipher):
                return
        self._pack(framing.take(), now)
        if framing.open:
            self._served = self._served or self._shakes
            self.step("ready", now)

    def _is_other(self, cipher: Cipher) -> bool:
        """The peer is not the one we have connected to: nothing it says is read."""
        why = cipher.admits(self.name) if self.name else ""
        if why:
            self._note_end(why)
        return bool(why)

    def _note_end(self, why: str) -> None:
        """A layer has come to its end. The messages before that are still served and answered."""
        if why:
            self.why = self.why or why
        self._ending = "broken" if why else "end"

    def _wrap(self, octets: bytes) -> bytes:
        return octets if self._cipher is None else self._cipher.send(octets)

    def _pack(self, octets: bytes, now: float) -> None:
        if octets:
            self._push(self._wrap(octets), now)

    def _push(self, octets: bytes, now: float) -> None:
        if octets:
            self._put(Piece(octets, b"", None, now))

    def _bound(self, now: float) -> None:
        """Whoever does not read costs no more than this, whatever he asks us to say: pongs, too."""
        if self.size > self.limits.write_queue:
            self.step("overflow", now)

    def _put(self, piece: Piece) -> None:
        if not piece.octets:  # a layer that has ended takes nothing
            self.unsent.append(piece)
            return
        self.outbox.append(piece)
        self.size += len(piece.octets)


# --- effects ----------------------------------------------------------------------------------------------------------


def _shake_hands(stream: Stream, now: float) -> None:
    stream._look(now)


def _send_queue(stream: Stream, now: float) -> None:
    """What waited for the handshake."""
    queue, stream._queue = stream._queue, []
    for piece in queue:
        stream.size -= len(piece.octets)
        stream._put(piece._replace(octets=stream._wrap(stream._framing.send(piece.message))))


def _give_back(stream: Stream, now: float) -> None:
    """Nothing more is written."""
    stream.unsent += [piece for piece in (*stream.outbox, *stream._queue) if piece.message]
    stream.outbox, stream._queue, stream.size = [], [], 0


def _give_back_all(stream: Stream, now: float) -> None:
    """Nor has it read what was written since it said its end."""
    stream.outbox = stream._after_end
    _give_back(stream, now)


def _give_back_queue(stream: Stream, now: float) -> None:
    """What waits for the handshake is not sent; what the layers say is."""
    stream.unsent += stream._queue
    stream.size -= sum(len(piece.octets) for piece in stream._queue)
    stream._queue = []


def _say_farewell(stream: Stream, now: float) -> None:
    """What the layers say at the end goes behind what is waiting."""
    stream._framing.close()
    stream._pack(stream._framing.take(), now)
    if stream._cipher is not None:
        stream._cipher.close()
        stream._push(stream._cipher.take(), now)
    stream.farewell_due = True


# --- the table --------------------------------------------------------------------------------------------------------

Effect = Callable[[Stream, float], None]
Entry = tuple[str, str, tuple[Effect, ...]]


def _gone(effect: Effect) -> dict[str, Entry]:
    """The socket is of no use any more, or not worth it."""
    return {
        "reset": (CLOSED, "reset", (effect,)),
        "write error": (CLOSED, "write error", (effect,)),
        "overflow": (CLOSED, "write queue full", (effect,)),
        "abort": (CLOSED, "aborted", (effect,)),
        "memory": (CLOSED, "no memory left", (effect,)),
    }


TABLE: Final[Mapping[str, Mapping[str, Entry]]] = {
    CONNECTING: {
        **_gone(_give_back),
        "connected": (HANDSHAKING, "", (_shake_hands,)),
        "refused": (CLOSED, "refused", (_give_back,)),
        "end": (CLOSED, "refused", (_give_back,)),
        "time-out": (CLOSED, "connect time-out", (_give_back,)),
        "close": (CLOSED, "", (_give_back,)),
    },
    HANDSHAKING: {
        **_gone(_give_back),
        "connected": (HANDSHAKING, "", (_shake_hands,)),
        "ready": (OPEN, "", (_send_queue,)),
        "end": (CLOSED, "end in handshake", (_give_back,)),
        "broken": (CLOSING, "broken", (_give_back_queue, _say_farewell)),
        "time-out": (CLOSED, "handshake time-out", (_give_back,)),
        "close": (CLOSED, "", (_give_back,)),
    },
    OPEN: {
        **_gone(_give_back),
        "end": (ANSWERING, "", ()),
        "broken": (CLOSING, "broken", (_say_farewell,)),
        "silent": (CLOSING, "idle", (_say_farewell,)),
        "half a message": (CLOSING, "message time-out", (_say_farewell,)),
        "end in a message": (CLOSING, "end in a message", (_say_farewell,)),
        "not taken": (CLOSED, "write time-out", (_give_back,)),
        "close": (CLOSING, "", (_say_farewell,)),
    },
    ANSWERING: {
        **_gone(_give_back_all),
        "time-out": (CLOSING, "", (_say_farewell,)),
        "close": (CLOSING, "", (_say_farewell,)),
        "broken": (CLOSED, "broken", (_give_back,)),
    },
    CLOSING: {
        **_gone(_give_back),
        "end": (CLOSED, "", (_give_back,)),
        "time-out": (CLOSED, "", (_give_back,)),
    },
    CLOSED: {},
}
"""State → input → next state, what to say about it, effects."""

_LASTS: Final[Mapping[str, Callable[[StreamLimits], float]]] = {
    CONNECTING: lambda limits: limits.connect,
    HANDSHAKING: lambda limits: limits.handshake,
    CLOSING: lambda limits: LINGER,
}
