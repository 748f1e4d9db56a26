"""`sinks:` of a configuration: each is read for the kind that its `type:` names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.errors import Diagnostic, OrchestratorError
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Document, Node, Scalar
from orchestrator.packages.sink import OURS, ChosenSink, SinkKind, SinkSettings, Spool, find_sink, sink_names
from orchestrator.settings.values import one_by_one

Path = tuple[str | int, ...]


class Reader(Protocol):
    """What the reader of the configuration offers."""

    document: Document
    diagnostics: list[Diagnostic]
    places: dict[Path, tuple[Node, Scalar | None]]
    sections: dict[Path, list[str]]

    def mistake(self, node: Node, code: str, message: str, help: str = "") -> None: ...
    def complain(self, details: ErrorDetails) -> None: ...


def read_sinks(reader: Reader, values: Any) -> None:
    """Put a `ChosenSink` in the place of each sink."""
    sinks = values.get("sinks") if isinstance(values, dict) else None
    if not isinstance(sinks, dict):
        if isinstance(values, dict) and sinks is None:
            values.pop("sinks", None)
        return
    for name, section in sinks.items():
        kind = _kind(reader, name, section)
        if kind is None:
            continue
        path = ("sinks", name)
        reader.sections[path] = [*OURS, *kind.settings.model_fields]
        reader.sections[*path, "spool"] = list(Spool.model_fields)
        own = {key: value for key, value in section.items() if key not in OURS}
        common = {key: section[key] for key in OURS[1:] if key in section}
        common |= {key: one_by_one(common[key]) for key in ("events", "fields") if key in common}
        chosen: list[Any] = []
        for model, given in ((SinkSettings, common), (kind.settings, own)):
            try:
                chosen.append(model.model_validate(given))
            except ValidationError as error:
                for details in error.errors():
                    details["loc"] = (*path, *details["loc"])
                    reader.complain(details)
        if len(chosen) == 2:
            sinks[name] = ChosenSink(kind, chosen[0], chosen[1], _places_in(reader, path))


def _kind(reader: Reader, name: str, section: Any) -> SinkKind | None:
    """The kind that a sink says it is; None when it says none that there is, which has been told then."""
    node, key = reader.places["sinks", name]
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        message = f"{name!r} cannot be the name of a sink"
        reader.mistake(key or node, "E106", message, "use small letters, digits and _")
        return None
    if not isinstance(section, Mapping):
        reader.mistake(key or node, "E103", "a map is expected here", "write {type: webhook, ...}")
        return None
    kind, place = section.get("type"), reader.places.get(("sinks", name, "type"), (key or node, None))[0]
    known = sink_names()
    if not isinstance(kind, str):
        help = f"add type: with one of {', '.join(known)}"
        reader.mistake(place, "E115", f"sink {name!r} needs its type", help)
        return None
    try:
        found = find_sink(kind)
    except OrchestratorError as error:
        reader.mistake(place, "E118", str(error))
        return None
    if found is None:
        help = meant(kind, known) or "install the package that has it"
        reader.mistake(place, "E118", f"no installed package has a kind of sink {kind!r}", help)
        return None
    return found


def _places_in(reader: Reader, path: Path) -> dict[str, tuple[str, int, int]]:
    """What lies under a path: `events.0` → file, line, column."""
    return {
        ".".join(map(str, place[len(path) :])): (reader.document.name, node.line, node.column)
        for place, (node, _) in reader.places.items()
        if place[: len(path)] == path and len(place) > len(path)
    }
