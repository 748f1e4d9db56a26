"""Signals as inputs: SIGTERM and SIGINT drain the server, a second one stops it at once, SIGHUP reloads its flows.

The handlers do nothing but leave a note. Python's C handler writes the signal's number into a pipe (`set_wakeup_fd`),
the loop reads it there and posts it; so a signal that arrives just before the loop goes to sleep is not slept over.
Only the second stop does more: it arms a timer of the kernel that ends the process, in case the loop is stuck and will
never read the pipe.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
RELOAD_SIGNAL = signal.SIGHUP

LAST_GRACE = 0.9
"""Seconds the process has after the second stop signal before the kernel ends it."""

_READ = 1


class Signals:
    """Reports signals from the loop: `on_stop(count)` with the number of stops so far, `on_reload()`.

    Only the main thread may make one (signal.signal). `close` restores what was there.
    """

    def __init__(self, loop: Any, on_stop: Callable[[int], None], on_reload: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._on_reload = on_reload
        self._stops = self._reported = 0
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)
        self._before = {number: signal.signal(number, self._note) for number in (*STOP_SIGNALS, RELOAD_SIGNAL)}
        self._before_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._watcher = loop.io(self._read, _READ)
        self._watcher.start(self._arrived)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Runs between two bytecodes of whatever is being executed, also when that never ends."""
        if number in STOP_SIGNALS:
            self._stops += 1
            if self._stops == 2:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, LAST_GRACE)

    def _arrived(self) -> None:
        """Loop callback: each octet in the pipe is the number of a signal."""
        try:
            numbers = os.read(self._read, 64)
        except BlockingIOError:
            return
        for number in numbers:
            if number in STOP_SIGNALS:
                self._reported += 1
                self._on_stop(self._reported)
            elif number == RELOAD_SIGNAL:
                self._on_reload()

    def close(self) -> None:
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._watcher.stop()
        self._watcher.close()
        os.close(self._read)
        os.close(self._write)
