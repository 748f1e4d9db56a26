"""Jobs of the core to the pools that do them.

Each kind of work, and each FreeSWITCH server, has a pool of its own, so that what hangs holds up only its like. A job
in FreeSWITCH's background and a dialplan application that is waited for may run for as long as a call does (originate,
rxfax, playback of a whole book); those have a pool with room for many, apart from the commands that are over in a
millisecond. So does each kind of effect of a package (`PoolEffect`): what it says about its pool holds, and an
exception in it fails its step only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import gevent

from orchestrator.core.jobs import FindUser, Job, Resolve, Write
from orchestrator.core.settings import ESL_QUEUE, HTTP_QUEUE, LOCATION_WRITES
from orchestrator.errors import EslDown, EslError, EslTimeout, StepError, StoreError
from orchestrator.flow.run.effects import EslCommand, EslExecute, Http
from orchestrator.flow.run.traits import PoolEffect
from orchestrator.runtime.errands import Begin, Errands
from orchestrator.runtime.esl_commands import Commands
from orchestrator.runtime.http import HttpClient
from orchestrator.runtime.pool import Pool
from orchestrator.runtime.resolve import Resolver
from orchestrator.runtime.user_sources import UserSources
from orchestrator.sip.locate import Found
from orchestrator.sip.push import Push, Pushed

T = TypeVar("T")
E = TypeVar("E", bound=PoolEffect)

NO_SESSIONS: Mapping[str, Any] = {}

HTTP_WORKERS = 64
DNS_WORKERS, DNS_BACKLOG = 10, 500
"""Look-ups of callers' names at a time."""
CONFIGURED_WORKERS = 4
"""The same for names of the configuration, of which there are few; they do not wait behind callers' names."""
THREADS = 64
"""Of gevent's resolver, for web services. A look-up that we have given up keeps its thread until the
system gives up, too, which takes it several times as long."""
USER_BACKLOG = 1_000
"""Look-ups of users that may wait for those before them, for each table."""
ESL_WORKERS = 16
"""Per server. FreeSWITCH runs the `api` commands of a connection one after the other anyway."""
LONG_WORKERS = 1_000
"""Per server: jobs and applications that are waited for. FreeSWITCH itself takes 1,000 sessions as it is shipped."""

JOB_LIMIT = 3600.0
EXECUTE_LIMIT = 12 * 3600.0
"""Seconds a job and an application may run. The end of the channel or of the link ends the waiting long before."""


class PushPools(Protocol):
    """Who does `Push` jobs (push.supervisor)."""

    @property
    def pools(self) -> Sequence[Pool]: ...
    def submit(self, job: int, push: Push) -> None: ...
    def close(self) -> None: ...


class Jobs:
    """Starts jobs; `answer(job id, result or StepError)` ends each of them.

    `links` and `sessions`, the connections of FreeSWITCH's dialplan, come and go.
    """

    def __init__(
        self,
        answer: Callable[[int, Any], None],
        http: HttpClient,
        links: Mapping[str, Commands],
        sessions: Mapping[str, Commands] = NO_SESSIONS,
        *,
        resolver: Resolver | None = None,
        pushes: PushPools | None = None,
        http_queue: int = HTTP_QUEUE,
        esl_queue: int = ESL_QUEUE,
        location_writes: int = LOCATION_WRITES,
    ) -> None:
        """`resolver` finds the servers of host names, those of the system unless given; `pushes` are the push services,
        if there are any; `http_queue`: web requests that
        may wait; `esl_queue`: commands of each server, short and long ones each; `location_writes`: writes of the
        location store at a time, none of which waits for another one here."""
        self.http = http
        self.users = UserSources()
        self._users: dict[str, Pool] = {}
        self._pushes = pushes
        self._answer = answer
        self._links = links
        self._sessions = sessions
        self._http = Pool("http", http.perform, answer, size=HTTP_WORKERS, backlog=http_queue, error="http.connect")
        shared = gevent.get_hub().threadpool
        shared.maxsize = max(shared.maxsize, THREADS)
        self.resolver = resolver or Resolver()
        self._dns = Pool("dns", self._find, answer, size=DNS_WORKERS, backlog=DNS_BACKLOG)
        self._dns_configured = Pool("dns configured", self._find, answer, size=CONFIGURED_WORKERS, backlog=DNS_BACKLOG)
        self._location = Pool("location", _write, answer, size=location_writes, backlog=location_writes)
        self._esl: dict[str, Pool] = {}
        self._esl_queue = esl_queue
        self._of_packages: dict[type[PoolEffect], Pool | Errands] = {}

    def add(self, effect: type[E], perform: Callable[[E], Any]) -> None:
        """Have `perform(effect)` do what effects of this kind ask for, in a pool as the kind describes it; without
        this they perform themselves. For a service whose connection they need.

        Raises:
            ValueError: somebody performs them already.
        """
        if effect in self._of_packages:
            raise ValueError(f"effects {effect.__name__} are performed already")
        self._add_pool(effect, perform)

    def add_errands(self, effect: type[E], begin: Begin) -> None:
        """The same for a connection that many requests share: `begin(effect, done)` starts one and returns.

        Raises:
            ValueError: somebody performs them already.
        """
        if effect in self._of_packages:
            raise ValueError(f"effects {effect.__name__} are performed already")
        self._of_packages[effect] = Errands(
            self._free_name(effect),
            begin,
            self._answer,
            most=effect.size + effect.backlog,
            timeout=effect.timeout,
            error=f"{effect.name}.failed",
        )

    def start(self, job: Job) -> None:
        """Hand a job to its pool; never waits."""
        effect = job.effect
        if isinstance(effect, Http):
            self._http.submit(job.id, effect)
        elif isinstance(effect, Write):
            self._location.submit(job.id, effect)
        elif isinstance(effect, PoolEffect):
            kind = type(effect)
            pool = self._of_packages.get(kind) or self._add_pool(kind, kind.perform)
            pool.submit(job.id, effect)
        elif isinstance(effect, FindUser):
            self._user_pool(effect).submit(job.id, effect)
        elif isinstance(effect, Resolve):
            (self._dns_configured if effect.configured else self._dns).submit(job.id, effect)
        elif isinstance(effect, Push):
            self._push(job.id, effect)
        elif effect.server in self._sessions:  # one channel each, and it comes and goes: no pool of its own
            self._esl_pool("sockets", LONG_WORKERS).submit(job.id, effect)
        elif effect.server not in self._links:
            self._answer(job.id, StepError("esl.down", f"there is no FreeSWITCH server {effect.server!r}"))
        elif effect.wait if isinstance(effect, EslExecute) else effect.kind == "bgapi":
            self._esl_pool(f"{effect.server} long", LONG_WORKERS).submit(job.id, effect)
        else:
            self._esl_pool(effect.server, ESL_WORKERS).submit(job.id, effect)

    def _find(self, effect: Resolve) -> Found:
        return self.resolver.find(effect.goal)

    @property
    def pools(self) -> tuple[Pool | Errands, ...]:
        own = (self._http, self._dns, self._dns_configured, self._location)
        pushes = self._pushes.pools if self._pushes is not None else ()
        return (*own, *self._users.values(), *self._esl.values(), *self._of_packages.values(), *pushes)

    @property
    def idle(self) -> bool:
        return all(pool.idle for pool in self.pools)

    def close(self) -> None:
        for pool in self.pools:
            pool.close()
        if self._pushes is not None:
            self._pushes.close()
        self.http.close()
        self.users.close()

    def _add_pool(self, kind: type[PoolEffect], perform: Callable[[Any], Any]) -> Pool:
        pool = self._of_packages[kind] = Pool(
            self._free_name(kind),
            partial(_within, kind, perform),
            self._answer,
            size=kind.size,
            backlog=kind.backlog,
            error=f"{kind.name}.failed",
        )
        return pool

    def _free_name(self, kind: type[PoolEffect]) -> str:
        """Of a pool: two packages may choose one name, and metrics tell them apart."""
        taken = any(pool.name == kind.name for pool in self.pools)
        return f"{kind.__module__}.{kind.__qualname__}" if taken else kind.name

    def _push(self, job: int, push: Push) -> None:
        if self._pushes is None:
            self._answer(job, Pushed("failed", f"there is no push service {push.service!r}"))
        else:
            self._pushes.submit(job, push)

    def _user_pool(self, effect: FindUser) -> Pool:
        """Each table has its own, as wide as it has connections now."""
        pool = self._users.get(effect.table)
        if pool is None:
            pool = Pool(
                f"users {effect.table}", self.users.find, self._answer, size=1, backlog=USER_BACKLOG, error="auth.down"
            )
            self._users[effect.table] = pool
        pool.size = effect.chosen.connections
        return pool

    def _esl_pool(self, name: str, size: int) -> Pool:
        pool = self._esl.get(name)
        if pool is None:
            pool = Pool(f"esl {name}", self._esl_command, self._answer, size=size, backlog=self._esl_queue)
            self._esl[name] = pool
        return pool

    def _commands(self, server: str) -> Commands:
        """Whom to ask. Raises StepError: it may have gone while the job waited."""
        found = self._sessions.get(server) or self._links.get(server)
        if found is None:
            raise StepError("esl.down", f"there is no FreeSWITCH server {server!r}")
        return found

    def _esl_command(self, effect: EslCommand | EslExecute) -> dict[str, Any]:
        if isinstance(effect, EslExecute):
            return self._run_application(effect)
        link = self._commands(effect.server)
        if effect.kind == "bgapi":
            limit = JOB_LIMIT if effect.timeout is None else effect.timeout
            text = _told(lambda: link.bgapi(effect.command, limit))
        else:
            text = _told(lambda: link.api(effect.command, effect.timeout))
        return {"ok": not text.startswith(("-ERR", "-USAGE")), "text": text}

    def _run_application(self, effect: EslExecute) -> dict[str, Any]:
        link = self._commands(effect.server)
        if not effect.wait:
            _told(lambda: link.execute(effect.uuid, effect.app, effect.args))
            return {"response": "", "variables": {}}
        limit = EXECUTE_LIMIT if effect.timeout is None else effect.timeout
        event = _told(lambda: link.run(effect.uuid, effect.app, effect.args, limit))
        response = event.get("Application-Response")
        variables = {name: event.get(f"variable_{name}") for name in effect.variables}
        return {"response": "" if response == "_none_" else response, "variables": variables}


def _within(kind: type[PoolEffect], perform: Callable[[Any], Any], effect: PoolEffect) -> Any:
    """Perform an effect of a package within its time. Raises StepError `name.timeout`."""
    with gevent.Timeout(kind.timeout) as limit:
        try:
            return perform(effect)
        except gevent.Timeout as over:
            if over is not limit:
                raise
    raise StepError(f"{kind.name}.timeout", f"no result within {kind.timeout:g} s")


def _write(effect: Write) -> StoreError | None:
    """Have the store write, within its time; why it did not."""
    limit = gevent.Timeout(effect.limit)
    try:
        with limit:
            effect.work()
    except StoreError as error:
        return error
    except gevent.Timeout as over:
        if over is not limit:
            raise
        return StoreError(f"the location store did not answer within {effect.limit:g} s")
    return None


def _told(command: Callable[[], T]) -> T:
    """What FreeSWITCH said. Raises StepError with the types of the language (FLOWLANG §5)."""
    try:
        return command()
    except EslTimeout as error:
        raise StepError("esl.timeout", str(error)) from None
    except EslDown as error:
        raise StepError("esl.down", str(error)) from None
    except EslError as error:
        raise StepError("esl.command", str(error)) from None
