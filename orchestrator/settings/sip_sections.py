"""The parts of `sip:` in the configuration, and what all sections have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from orchestrator.settings.values import (
    Address,
    Count,
    Duration,
    Interval,
    one_by_one,
    parse_file,
    parse_name_server,
    parse_origin,
    parse_path,
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimerSettings(Section):
    """RFC 3261's timers, in seconds."""

    t1: Duration = 0.5
    t2: Duration = 4.0
    t4: Duration = 5.0
    c: Duration = 180.0


class TlsSettings(Section):
    """Certificates in PEM; see `runtime.streams.tls`."""

    certificate: Annotated[Path | None, PlainValidator(parse_file)] = None
    key: Annotated[Path | None, PlainValidator(parse_file)] = None
    ca: Annotated[Path | None, PlainValidator(parse_file)] = None
    verify: Literal["none", "optional", "required"] = "none"
    verify_server: Literal["none", "required"] = "required"
    versions: Annotated[tuple[Literal["1.2", "1.3"], ...], BeforeValidator(one_by_one), Field(min_length=1)] = (
        "1.2",
        "1.3",
    )


class StreamSettings(Section):
    """What connections may take; see `runtime.streams.limits`."""

    connections: Count = 15_000
    connections_per_source: Count = 1_000
    connect: Duration = 4.0
    handshake: Duration = 10.0
    message: Duration = 10.0
    idle: Duration = 3900.0
    write: Duration = 20.0
    buffered: Annotated[int, Field(ge=1_000_000, le=1_000_000_000_000)] = 64_000_000
    """Octets."""
    write_queue: Annotated[int, Field(ge=65_535, le=1_000_000_000)] = 1_000_000
    """Octets. Less than a message would cut a phone that reads as fast as it can."""


class WebSocketSettings(Section):
    """Which browsers may connect; see `runtime.streams.websocket`."""

    path: Annotated[str | None, PlainValidator(parse_path)] = None
    origins: Annotated[tuple[Annotated[str, PlainValidator(parse_origin)], ...], BeforeValidator(one_by_one)] = ()
    ping: Interval = 30.0


class DnsSettings(Section):
    """Whom to ask for host names."""

    servers: Annotated[
        tuple[Annotated[Address, PlainValidator(parse_name_server)], ...], BeforeValidator(one_by_one)
    ] = ()
    timeout: Duration = 4.0


class FailoverSettings(Section):
    """When another server of a domain is tried, in seconds; see `sip.branch`."""

    after: Duration = 4.0
    avoid: Duration = 60.0
