"""Push services: who is told to wake a phone. Those that come with the server (settings.push_kinds) and those of
other packages are kinds of the same type.

    SERVICE = PushServiceKind("acme", "Acme Messaging.", Acme, AcmeSettings)

    [project.entry-points."orchestrator.push"]
    acme = "orchestrator_acme:SERVICE"

The configuration names one and has its settings beside: `push: {services: {acme: {url: 'https://…'}}}`, or under
another name `phones: {type: acme, url: …}`. The server keeps the queue, tries again, and leaves a service alone that is
down (push.supervisor): a sender only says what came of one push.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from orchestrator.packages.groups import PUSH_GROUP, Find, check_name, check_settings, installed, load_named, names_of
from orchestrator.packages.service import NoSettings
from orchestrator.sip.push import Push, Pushed, PushService

OURS = ("type", "provider", "apps", "cancels", "timeout", "concurrency")
"""Keys of an entry of `push: services:` that are not the kind's own."""


class PushDown(Exception):
    """The push service cannot take pushes now: it is not reached, breaks off, answers 5xx, refuses us. It says nothing
    about the phone. The push is tried again while there is time."""

    def __init__(self, reason: str, retry_after: float | None = None, *, final: bool = False) -> None:
        """`reason` as the log and `push_failed` have it; `retry_after`: seconds in which the service wants no push at
        all; `final`: this push is not tried again (the account is refused, or it may have been taken)."""
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.final = final


class PushSender(Protocol):
    """One push service that is open."""

    def check(self) -> Sequence[str]:
        """What is wrong with the account, for people: keys that cannot be read, certificates that have expired. Reads
        files, asks nobody. For `orchestrator check`, and once before `start`; what it says keeps nobody from trying."""

    def start(self) -> None:
        """Called before the server takes calls. It does not wait: it connects when there is something to send."""

    def server_of(self, push: Push) -> str:
        """Which server it goes to: one that is down holds up no pushes to others. '' where there is only one."""

    def send(self, push: Push) -> Pushed:
        """One try. Called in a greenlet that may wait for sockets; several at a time, as many as `concurrency` says.

        When its time is over, `gevent.Timeout` is raised where it waits. Whatever else it raises is a fault: it is
        logged, and the push has failed.

        Raises:
            PushDown: nothing to do with this phone.
        """

    def stop(self) -> None:
        """Let go of connections, at the end. A `send` that still runs may raise."""


@dataclass(frozen=True, slots=True)
class PushServiceKind:
    """The declaration of a kind of push service, which its entry point names."""

    name: str
    """A word of small letters, digits and `_`: `type:` in the configuration, and of the entry point."""
    doc: str
    open: Callable[[Any], PushSender]
    """Mostly a class: it is given an instance of `settings`. It neither waits nor reads files. Raises
    OrchestratorError when something has to be installed first."""
    settings: type[BaseModel] = NoSettings
    provider: str = ""
    """What contacts call it (`pn-provider`), unless `provider:` is configured; '': as the kind or, where that has many,
    as the entry is named."""
    describe: Callable[[PushService, Any], PushService] = lambda plain, settings: plain
    """What the settings say about which phones it serves: makes the service with its teams, apps, public key."""
    concurrency: int = 50
    """Pushes at a time, unless configured."""

    def __post_init__(self) -> None:
        check_name(self.name, "push service")
        check_settings(self.settings.model_fields, OURS, f"push service {self.name!r}", "push: services")


@dataclass(frozen=True, slots=True)
class ChosenPush:
    """What an entry of `push: services:` says."""

    kind: PushServiceKind
    service: PushService
    """As the core knows it."""
    settings: Any
    """An instance of the settings model."""
    timeout: float
    """Seconds that one try may take."""
    concurrency: int
    """Pushes at a time."""


def find_push_service(name: str, find: Find = installed) -> PushServiceKind | None:
    """The installed kind of that name; None when there is none. Raises OrchestratorError: it cannot be used."""
    return load_named(find, PUSH_GROUP, name, PushServiceKind, "push service")


def push_service_names(find: Find = installed) -> list[str]:
    """The names of all that are installed; none of their packages is loaded."""
    return names_of(find, PUSH_GROUP)
