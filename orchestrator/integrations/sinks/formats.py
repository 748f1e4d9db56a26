"""An event as it leaves: CloudEvents 1.0 in JSON, or a JSON-RPC 2.0 notification like those of OpenSIPS' event
modules."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

from orchestrator.packages.sink import Outgoing, source_of

CONTENT_TYPES = {"cloudevents": "application/cloudevents+json", "jsonrpc": "application/json"}

_dump = json.JSONEncoder(separators=(",", ":"), default=str).encode
_quote = json.encoder.encode_basestring_ascii


def fresh_ids() -> Iterator[str]:
    """Ids that no other event has, here or on another server: random for each start, and a number."""
    start = os.urandom(8).hex()
    return (f"{start}-{number}" for number in count(1))


class Formatter:
    """Makes what a sink sends of events."""

    def __init__(self, format: str, node: str, fields: tuple[str, ...], ids: Iterator[str]) -> None:
        """`fields`: the attributes that are sent, () for all."""
        self._source = _quote(source_of(node))
        self._fields = frozenset(fields)
        self._ids = ids
        self._body: Callable[[str, str, Mapping[str, Any], str, float], str]
        self._body = self._cloud_event if format == "cloudevents" else self._notification

    def make(self, name: str, attributes: Mapping[str, Any], call: str, time: float) -> Outgoing:
        """`call` is the id of the call it belongs to, '' for none."""
        id, fields = next(self._ids), self._fields
        data = {key: value for key, value in attributes.items() if key in fields} if fields else attributes
        subject = call or _text(attributes.get("aor"))
        body = self._body(id, name, data, subject, time).encode()
        return Outgoing(id, name, domain_of(attributes), subject, time, body)

    def _cloud_event(self, id: str, name: str, data: Mapping[str, Any], subject: str, time: float) -> str:
        about = f'"subject":{_quote(subject)},' if subject else ""
        return (
            f'{{"specversion":"1.0","id":{_quote(id)},"source":{self._source},"type":{_quote(name)},{about}'
            f'"time":"{_iso(time)}","datacontenttype":"application/json","data":{_dump(data)}}}'
        )

    def _notification(self, id: str, name: str, data: Mapping[str, Any], subject: str, time: float) -> str:
        return _dump({"jsonrpc": "2.0", "method": name, "params": data})


def domain_of(attributes: Mapping[str, Any]) -> str:
    """The domain of the address that an event is about; '' for none."""
    for name in ("aor", "to"):
        domain = _text(attributes.get(name)).rpartition("@")[2]
        if domain and domain != attributes.get(name):
            return domain
    return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
