"""A connection to a broker: its settings, how it is made, and what goes wrong with it.

py-amqp blocks on plain sockets, so it waits as gevent does. It is an optional dependency: one message says what to
install where it is missing.
"""

from __future__ import annotations

import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from orchestrator import __version__, errors
from orchestrator.packages.setting_types import Duration, InvalidValue, Switch

S = TypeVar("S", bound="BrokerSettings")


class BrokerSettings(BaseModel):
    """The keys that say which broker, of sinks and of `amqp_in`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    host: str = Field("127.0.0.1", min_length=1)
    port: int | None = Field(None, ge=1, le=65_535)
    """None: 5672, with TLS 5671."""
    user: str = "guest"
    password: SecretStr = SecretStr("guest")
    vhost: str = "/"
    tls: Switch = False
    ca: Path | None = None
    """Authorities that vouch for the broker; None: those of this machine."""
    certificate: Path | None = None
    """Ours, with its key, for a broker that asks for one."""
    timeout: Duration = 10.0
    """For the connection, and for each answer of the broker."""

    @model_validator(mode="after")
    def _installed(self: S) -> S:
        if find_spec("amqp") is None:
            raise InvalidValue("the library amqp is not installed", "pip install 'orchestrator[amqp]'")
        for path in (self.ca, self.certificate):
            if path is not None and not path.is_file():
                raise InvalidValue(f"cannot read {path}", "name a file in PEM")
        return self

    @property
    def address(self) -> str:
        """`host:port`"""
        return f"{self.host}:{self.port or (5671 if self.tls else 5672)}"


def connect(settings: BrokerSettings, what: str, heartbeat: float = 0) -> Any:
    """An open `amqp.Connection`. Raises what `failures` names; nothing stays open then."""
    import amqp

    tls: dict[str, Any] | bool = False
    if settings.tls:
        tls = {
            "server_hostname": settings.host,
            "cert_reqs": ssl.CERT_REQUIRED,
            "ca_certs": None if settings.ca is None else str(settings.ca),
            "certfile": None if settings.certificate is None else str(settings.certificate),
        }
    connection = amqp.Connection(
        settings.address,
        userid=settings.user,
        password=settings.password.get_secret_value(),
        virtual_host=settings.vhost,
        login_method="PLAIN",
        ssl=tls,
        heartbeat=heartbeat,
        connect_timeout=settings.timeout,
        read_timeout=settings.timeout,
        write_timeout=settings.timeout,
        client_properties={"product": "orchestrator", "version": __version__, "connection_name": what},
    )
    try:
        connection.connect()
    except BaseException:
        connection.collect()
        raise
    return connection


def failures() -> tuple[type[BaseException], ...]:
    """What a broker that is away, or refuses, leads to."""
    import amqp

    return (amqp.exceptions.AMQPError, OSError, EOFError)


def reason_of(error: BaseException) -> str:
    """Why, in the words of the broker or of the system; secrets are in no exception of py-amqp."""
    return str(getattr(error, "reply_text", "") or errors.reason_of(error))[:300]


def discard(connection: Any) -> None:
    """Let go of a connection without a word: its peer may be gone."""
    try:
        connection.collect()
    except Exception:  # noqa: S110 - it may be half made
        pass
