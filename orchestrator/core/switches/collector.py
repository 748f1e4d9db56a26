"""`collect`: keys of one leg, gathered from its DTMF events while FreeSWITCH plays to it (FLOWLANG §4.3).

FreeSWITCH has an application for this, play_and_get_digits. It is not used, because nothing but its own timeout ends
it: `uuid_break` stops its prompt and not its waiting (switch_ivr_collect_digits_count looks at no CF_BREAK), so a call
that ends meanwhile keeps the other leg, and a step that is cut off holds up the next one. Here the prompt is a
playback, silence is played behind it so that a bridge waits as long as keys are awaited, and the clock is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.core.node import Node
from orchestrator.core.switches.executions import NOT_PLAYED, Application, Execution
from orchestrator.errors import StepError
from orchestrator.esl.channels import Channel
from orchestrator.esl.codec import EslEvent
from orchestrator.flow.run import effects
from orchestrator.timers import Timer

SILENCE = "silence_stream://-1"

Begin = Callable[[Execution], None]
"""Starts an execution as soon as the leg is free for it."""
Done = Callable[["str | StepError"], None]
Ignored = Callable[[str, str], None]
"""Told a key that has no effect, and why."""


class Collector:
    """One `collect`. `done` is told the keys, or the error, once FreeSWITCH plays nothing for it any more."""

    def __init__(
        self, node: Node, channel: Channel, effect: effects.Collect, begin: Begin, done: Done, ignored: Ignored
    ) -> None:
        self.channel = channel
        self.keys = ""
        self._node = node
        self._effect = effect
        self._begin = begin
        self._done: Done | None = done
        self._ignored = ignored
        self._playing: Execution | None = None
        self._timer: Timer | None = None
        self._over = False

    def start(self) -> None:
        self.channel.listen(self)
        if self._effect.prompt:
            self._play(self._effect.prompt, self._prompted)
        else:
            self._wait()

    def hear(self, event: EslEvent) -> bool:
        """An event of the leg: each key is the collector's, also one that it does not want."""
        if event.name != "DTMF":
            return False
        self._hear_key(event)
        return True

    def _hear_key(self, event: EslEvent) -> None:
        key = event.get("DTMF-Digit").upper()
        if key not in effects.KEYS:  # FreeSWITCH also reports flash and pauses as digits
            self._ignored(repr(key), "collect takes 0-9, *, # and A-D")
            return
        if self._over:
            self._ignored(key, "collect has all its keys")
            return
        if key in self._effect.end:
            self._finish()
            return
        self.keys += key
        if len(self.keys) >= self._effect.max:
            self._finish()
        elif self._playing is not None and self._timer is None:
            self._playing.stop()  # a key interrupts the prompt, and the clock for the next one runs
            self._set_clock()
        else:
            self._set_clock()

    def undo(self) -> None:
        """Nobody waits for the keys any more."""
        self._done = None
        self._over = True
        self.channel.ignore(self)
        self._stop_clock()
        if self._playing is not None:
            self._playing.forget()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _play(self, file: str, ended: Callable[[Any], None]) -> None:
        self._playing = Execution(self._node, Application("playback", file).on(self.channel), ended)
        self._begin(self._playing)

    def _prompted(self, result: Any) -> None:
        self._playing = None
        response = "" if isinstance(result, StepError) else result["response"]
        if isinstance(result, StepError):
            self._end(result)
        elif response in NOT_PLAYED and not self._over:
            self._end(StepError("esl.command", f"collect: the prompt {self._effect.prompt}: {NOT_PLAYED[response]}"))
        elif self._over:
            self._end(self.keys)
        else:
            self._wait()

    def _wait(self) -> None:
        if self._timer is None:
            self._set_clock()
        self._play(SILENCE, self._silence_ended)

    def _silence_ended(self, result: Any) -> None:
        self._playing = None
        if isinstance(result, StepError):
            self._end(result)
        elif self._over:
            self._end(self.keys)

    def _set_clock(self) -> None:
        self._stop_clock()
        self._timer = self._node.timers.after(self._effect.timeout, lambda _: self._finish())

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _finish(self) -> None:
        """No more keys; the answer waits for the end of what plays, so that the next application finds the leg free."""
        self._over = True
        self._stop_clock()
        if self._playing is not None:
            self._playing.stop()
        else:
            self._end(self.keys)

    def _end(self, result: str | StepError) -> None:
        self._over = True
        self.channel.ignore(self)
        self._stop_clock()
        done, self._done = self._done, None
        if done is not None:
            done(result)
