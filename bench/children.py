"""Processes that a benchmark starts end with it, also when it is killed (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_SET_DEATH_SIGNAL = 1
"""Linux: PR_SET_PDEATHSIG of prctl(2)."""


def ends_with_us(number: int = signal.SIGTERM) -> Callable[[], None]:
    """For `preexec_fn` of `subprocess.Popen`: the child gets this signal when the thread that starts it ends, also when
    this process is killed."""
    us, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_SET_DEATH_SIGNAL, number)
        if os.getppid() != us:  # killed between fork and here
            os._exit(1)

    return ask
