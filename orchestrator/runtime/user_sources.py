"""The user tables that are databases or sources of packages: opened when they are first asked, closed when no
configuration names them any more."""

from __future__ import annotations

from collections.abc import Iterable

import gevent
from loguru import logger

from orchestrator.core.jobs import FindUser
from orchestrator.errors import StepError
from orchestrator.packages.user_source import ChosenUsers, UserSource
from orchestrator.sip.digest import Secret


class UserSources:
    """Those of one server."""

    def __init__(self) -> None:
        self._open: list[tuple[ChosenUsers, UserSource]] = []
        self._trouble: dict[str, str] = {}

    @property
    def trouble(self) -> str:
        """Which tables could not be asked last, and why; '' for none."""
        return ", ".join(f"{name}: {reason}" for name, reason in sorted(self._trouble.items()))

    def find(self, effect: FindUser) -> Secret | None:
        """Ask a table for a user; in a greenlet that may wait. Raises StepError `auth.down`."""
        if effect.given_up:
            raise StepError("auth.down", "nobody waits for it any more")
        limit = gevent.Timeout(effect.timeout)
        try:
            with limit:
                found = self._source(effect.chosen).find(effect.user, effect.realm)
                if not (found is None or isinstance(found, Secret)):
                    raise TypeError(f"find() gave a {type(found).__name__}, not a Secret")
        except gevent.Timeout as over:
            if over is not limit:
                raise
            reason = f"no answer within {effect.timeout:g} s"
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        else:
            if self._trouble.pop(effect.table, ""):
                logger.bind(table=effect.table).info("user_table_up")
            return found
        if effect.table not in self._trouble:
            logger.bind(table=effect.table, reason=reason).error("user_table_down")
        self._trouble[effect.table] = reason
        raise StepError("auth.down", reason)

    def _source(self, chosen: ChosenUsers) -> UserSource:
        for known, source in self._open:
            if known == chosen:
                return source
        source = chosen.kind.open(chosen.settings)
        self._open.append((chosen, source))
        return source

    def keep(self, named: Iterable[tuple[str, ChosenUsers]]) -> None:
        """Close all but these, by the names of their tables. Those that are asked right now fail, and are asked
        again."""
        kept = dict(named)
        self._trouble = {name: reason for name, reason in self._trouble.items() if name in kept}
        gone = [source for chosen, source in self._open if chosen not in kept.values()]
        self._open = [(chosen, source) for chosen, source in self._open if source not in gone]
        for source in gone:
            _close(source)

    def close(self) -> None:
        """Close all."""
        self.keep(())


def _close(source: UserSource) -> None:
    try:
        source.close()
    except Exception as error:
        logger.bind(reason=f"{type(error).__name__}: {error}").warning("user_table_not_closed")
