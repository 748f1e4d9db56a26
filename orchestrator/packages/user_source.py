"""User sources of other packages: where `auth` finds the passwords of users.

    SOURCE = UserSourceKind("ldap", "An LDAP directory.", Directory, DirectorySettings)

    [project.entry-points."orchestrator.user_sources"]
    ldap = "orchestrator_ldap:SOURCE"

The configuration names one and has its settings beside: `users: {staff: {source: ldap, url: 'ldaps://…'}}`. What it
says is kept for a time by the server (`auth: cache`), and look-ups of the same user are shared: it has to keep nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from orchestrator.packages.groups import USER_GROUP, Find, check_name, check_settings, installed, load_named, names_of
from orchestrator.packages.service import NoSettings
from orchestrator.sip.digest import Secret

OURS = ("source", "timeout", "connections")
"""Keys of a user table that are not the source's own."""


class UserSource(Protocol):
    """One that is open."""

    def find(self, user: str, realm: str) -> Secret | None:
        """The password of a user, or hashes of it; None for somebody who is not there.

        Called in a greenlet that may wait for sockets; several at a time, as many as `connections` says. When its time
        is over, `gevent.Timeout` is raised where it waits. Whatever else it raises means that it cannot say: the phone
        gets 503, or what was found before is used.
        """

    def close(self) -> None:
        """Let go of connections, at a reload that no longer names the source and at the end. A `find` that still runs
        may raise."""


@dataclass(frozen=True, slots=True)
class UserSourceKind:
    """The declaration of a kind of source, which its entry point names."""

    name: str
    """A word of small letters, digits and `_`: in `users:`, and of the entry point."""
    doc: str
    open: Callable[[Any], UserSource]
    """Mostly a class: it is given an instance of `settings`. It does not wait; it connects when it is first asked."""
    settings: type[BaseModel] = NoSettings

    def __post_init__(self) -> None:
        check_name(self.name, "user source")
        check_settings(self.settings.model_fields, OURS, f"user source {self.name!r}", "users")


@dataclass(frozen=True, slots=True)
class ChosenUsers:
    """What `users:` says of a table that is a source; two that say the same are the same."""

    kind: UserSourceKind
    settings: Any
    """An instance of the settings model."""
    timeout: float
    """Seconds that it may take for a look-up."""
    connections: int
    """Look-ups at a time."""


def find_user_source(name: str, find: Find = installed) -> UserSourceKind | None:
    """The installed source of that name; None when there is none. Raises OrchestratorError: it cannot be used."""
    return load_named(find, USER_GROUP, name, UserSourceKind, "user source")


def user_source_names(find: Find = installed) -> list[str]:
    """The names of all that are installed; none of their packages is loaded."""
    return names_of(find, USER_GROUP)
