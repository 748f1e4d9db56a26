"""Reading a site again while the server runs: one reload after the other, all of it or nothing.

A signal asks for one and does not wait; the API asks for one and is told what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gevent
from gevent.lock import Semaphore
from loguru import logger

from orchestrator.errors import OrchestratorError
from orchestrator.server_log import log_of_refusal
from orchestrator.settings import Settings
from orchestrator.site import LoadedSite, needs_restart, try_to_read


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What is in force now, and the sections of the configuration that differ and need a restart."""

    flows: int
    version: str
    restart_needed: tuple[str, ...]


class Reloader:
    """`reread()` reads the site, in a thread; it raises OrchestratorError. `take(site)` puts it in force."""

    def __init__(
        self, settings: Settings, reread: Callable[[], LoadedSite], take: Callable[[LoadedSite], None]
    ) -> None:
        self.mistakes: tuple[str, ...] = ()
        """Why the last one was refused."""
        self._settings = settings
        self._reread = reread
        self._take = take
        self._one = Semaphore()
        self._wanted = self._busy = False

    def ask(self) -> None:
        """Reload soon. One that is asked for while another reads makes one more."""
        self._wanted = True
        if not self._busy:
            self._busy = True
            gevent.spawn(self._all)

    def _all(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                try:
                    self.reload()
                except OrchestratorError:
                    pass  # it is logged, and /readyz says so
        finally:
            self._busy = False

    def reload(self) -> Reloaded:
        """Read and check in a thread, so that calls go on meanwhile; take the result, or nothing of it. Raises
        OrchestratorError."""
        with self._one:
            site = gevent.get_hub().threadpool.apply(try_to_read, (self._reread,))
            if isinstance(site, OrchestratorError):
                self.mistakes = log_of_refusal(site)
                raise site
            self._take(site)
            self.mistakes = ()
            sections = tuple(needs_restart(self._settings, site.settings))
            for section in sections:
                logger.bind(section=section).warning("restart_needed")
            logger.bind(flows=len(site.program.flows), version=site.program.hash).info("flows_reloaded")
            return Reloaded(len(site.program.flows), site.program.hash, sections)
