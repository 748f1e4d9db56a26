"""From the text of a configuration file to `Settings`, every mistake with its line and column.

The file is read with the reader of the flows, so that nothing in it is typed by YAML: a password `0123` stays that. A
value may come from the environment, `{env: NAME}` or `{env: NAME, default: value}`, so that one file serves a machine
and a container; a password also from a file, `{file: path}`. Pydantic says what does not fit the model; here it is put
into the words and at the place of the user's file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.core.settings import LOCATION_TIMEOUT
from orchestrator.errors import Diagnostic, InputError, OrchestratorError
from orchestrator.flow.expr import closest
from orchestrator.flow.expr.blanks import ORDINARY_SPACE, odd_blank
from orchestrator.flow.language.diagnostics import in_order
from orchestrator.flow.language.program import Place
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.written import environment_reference, transport_flaw, trust_flaw
from orchestrator.flow.language.yaml import Document, Entries, Items, Node, Scalar, parse
from orchestrator.packages.location_store import OURS, ChosenStore, find_store, store_names
from orchestrator.packages.push_service import OURS as PUSH_KEYS
from orchestrator.packages.push_service import PushServiceKind, find_push_service, push_service_names
from orchestrator.packages.service import Service, find_service, service_names
from orchestrator.packages.transport import TransportKind, find_transport, transport_names
from orchestrator.packages.user_source import OURS as SOURCE_KEYS
from orchestrator.packages.user_source import ChosenUsers, find_user_source, user_source_names
from orchestrator.settings.model import FreeSwitchSettings, GatewaySettings, Settings, SqlColumns, UserSettings
from orchestrator.settings.push_kinds import KINDS, HttpPushSettings
from orchestrator.settings.push_sections import PushEntrySettings
from orchestrator.settings.sinks import read_sinks
from orchestrator.settings.values import (
    SECURE,
    InvalidValue,
    holds_everybody,
    on_or_off,
    parse_duration,
    parse_network,
)

DEFAULT_FILE = Path("config/orchestrator.yml")


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file. Raises InputError, also when the file cannot be read."""
    try:
        text = _read(path)
    except InvalidValue as invalid:
        raise InputError([Diagnostic(str(path), 1, 1, "E003", str(invalid))]) from None
    return read_settings(str(path), text, environ)


def read_secret(path: Path) -> str:
    """The secret that a file holds, without the line feed editors put behind it. Raises InvalidValue."""
    return _read(path).rstrip("\n")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidValue(f"cannot read {path}: {reason}") from None


def read_settings(name: str, text: str, environ: Mapping[str, str]) -> Settings:
    """The settings in `text`, with what is odd in it as `warnings`; `name` is what diagnostics call it.

    Raises InputError with every mistake found.
    """
    document = parse(name, text)
    reader = _Reader(document, environ)
    values = {} if document.root is None else reader.value(document.root, ())
    reader.read_packages(values)
    reader.read_store(values)
    reader.read_users(values)
    reader.read_push(values)
    read_sinks(reader, values)
    reader.refuse_open_relay(values)
    if reader.diagnostics:
        raise InputError(in_order(reader.diagnostics))
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise InputError(in_order(reader.diagnostic(details) for details in error.errors())) from None
    if found := in_order(reader.contradictions(settings)):
        raise InputError(found)
    return settings.with_file(
        in_order(reader.warnings(settings)), reader.push_places(settings), reader.service_places()
    )


@dataclass(slots=True)
class _Reader:
    """Turns nodes into plain values and remembers where each stood."""

    document: Document
    environ: Mapping[str, str]
    diagnostics: list[Diagnostic] = field(default_factory=list)
    places: dict[tuple[str | int, ...], tuple[Node, Scalar | None]] = field(default_factory=dict)
    """Path of keys and indexes → the value's node and that of its key."""
    sources: dict[str, type[BaseModel]] = field(default_factory=dict)
    """Names under `users:` that are sources of packages → the model of what stands there."""
    sections: dict[tuple[str | int, ...], list[str]] = field(default_factory=dict)
    """Paths of what packages add, of services, transports, push services and sinks → the keys that may stand there."""
    flawed: list[tuple[str | int, ...]] = field(default_factory=list)
    """Paths of values that could not be had from the environment, which has been told."""
    store: type[BaseModel] | None = None
    """The model of the store that `location:` names."""

    def __post_init__(self) -> None:
        self.diagnostics += self.document.diagnostics

    def value(self, node: Node, path: tuple[str | int, ...], key: Scalar | None = None) -> Any:
        self.places[path] = (node, key)
        if isinstance(node, Scalar):
            if meant := environment_reference(node.text, node.plain):
                message = f"{node.text!r} is taken as it is, nothing is filled in here"
                return self.mistake(node, "E106", message, f"write {meant}, without quotes around it")
            return None if node.plain and node.text in ("", "~", "null") else node.text
        if isinstance(node, Items):
            return [self.value(item, (*path, index)) for index, item in enumerate(node)]
        if isinstance(node.get("env"), Scalar) or ("env" in node and set(node.entries) <= {"env", "default"}):
            known = len(self.diagnostics)
            value = self._from_environment(node, path)
            if len(self.diagnostics) > known:
                self.flawed.append(path)
            return value
        if path[-1:] and path[-1] in _FROM_FILES and set(node.entries) == {"file"}:
            return self._from_file(node)
        return {name.text: self.value(item, (*path, name.text), name) for name, item in node}

    def _from_environment(self, node: Entries, path: tuple[str | int, ...]) -> Any:
        for key, _ in node:
            if key.text not in ("env", "default"):
                return self.mistake(key, "E101", f"unknown key {key.text!r}", meant(key.text, ("env", "default")))
        name = node.get("env")
        if not isinstance(name, Scalar) or not name.text:
            return self.mistake(name or node, "E105", "the name of an environment variable is expected here")
        if self.environ.get(name.text):
            return self.environ[name.text]
        if (default := node.get("default")) is not None:
            value = self.value(default, path)
            self.places[path] = (default, None)
            return value
        help = f"set it, or give a default: {{env: {name.text}, default: ...}}"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.text):
            bare = re.sub(r"^\$?\{?(?:env\.)?|\}$", "", name.text)
            named = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", bare)
            help = f"write {{env: {bare}}}" if named else "write {env: NAME} or {env: NAME, default: value}"
            return self.mistake(name, "E106", f"{name.text!r} is not the name of an environment variable", help)
        return self.mistake(name, "E106", f"environment variable {name.text} is not set", help)

    def _from_file(self, node: Entries) -> Any:
        name = node.get("file")
        if not isinstance(name, Scalar):
            return self.mistake(name or node, "E105", "the name of a file is expected here")
        try:
            return read_secret(Path(name.text))
        except InvalidValue as invalid:
            return self.mistake(name, "E003", str(invalid))

    def mistake(self, node: Node, code: str, message: str, help: str = "") -> None:
        self.diagnostics.append(self._at(node, code, message, help))

    def _at(self, node: Node, code: str, message: str, help: str = "") -> Diagnostic:
        length = max(1, node.end - node.start) if isinstance(node, Scalar) else 1
        found = odd_blank(node.text) if isinstance(node, Scalar) else None
        if found is not None:
            help = f"there is a {found[1]} in it: {ORDINARY_SPACE}"
        return Diagnostic(self.document.name, node.line, node.column, code, message, help=help, length=length)

    def read_packages(self, values: Any) -> None:
        """Put instances of their models in the place of what stands under the names of services and transports."""
        if not isinstance(values, dict):
            return
        self._read_sections(values, ("services",), "service", find_service, service_names)
        if isinstance(sip := values.get("sip"), dict):
            self._read_sections(sip, ("sip", "transports"), "transport", find_transport, transport_names)

    def _read_sections(
        self,
        values: dict[str, Any],
        path: tuple[str, ...],
        what: str,
        find: Callable[[str], Service | TransportKind | None],
        names: Callable[[], list[str]],
    ) -> None:
        """The same for those under one key, the last one of `path`."""
        sections = values.get(path[-1])
        if not isinstance(sections, dict):
            if sections is None:
                values.pop(path[-1], None)
            return
        for name, section in sections.items():
            key = self.places[*path, name][1] or self.places[*path, name][0]
            try:
                found = find(name)
            except OrchestratorError as error:
                self.mistake(key, "E118", str(error))
                continue
            if found is None:
                help = meant(name, names()) or "install the package that has it"
                self.mistake(key, "E118", f"no installed package has a {what} {name!r}", help)
                continue
            self.sections[*path, name] = list(found.settings.model_fields)
            try:
                sections[name] = found.settings.model_validate({} if section is None else section)
            except ValidationError as error:
                for details in error.errors():
                    details["loc"] = (*path, name, *details["loc"])
                    self.complain(details)

    def read_store(self, values: Any) -> None:
        """Put a `ChosenStore` in the place of a `location:` that names a store of a package."""
        section = values.get("location") if isinstance(values, dict) else None
        if not isinstance(section, dict):
            return
        node, key = self.places["location",]
        name, known = section.get("store"), self.places.get(("location", "store"))
        for each, _ in node if known is None and isinstance(node, Entries) else ():
            if (help := meant(each.text, ("env", "default", "store"))).startswith("did you mean"):
                self.mistake(each, "E101", f"unknown key {each.text!r}", help)
                return
        if known is None or not isinstance(name, str):
            self.mistake(
                known[0] if known else key or node, "E105", "the name of a store is expected here: {store: NAME}"
            )
            return
        try:
            kind = find_store(name)
        except OrchestratorError as error:
            self.mistake(known[0], "E118", str(error))
            return
        if kind is None:
            help = meant(name, store_names()) or "install the package that has it"
            self.mistake(known[0], "E118", f"no installed package has a location store {name!r}", help)
            return
        self.store = kind.settings
        own = {key: value for key, value in section.items() if key not in OURS}
        try:
            timeout = parse_duration(section["timeout"]) if "timeout" in section else LOCATION_TIMEOUT
            values["location"] = ChosenStore(kind, kind.settings.model_validate(own), timeout)
        except InvalidValue as misfit:
            self.mistake(self.places["location", "timeout"][0], "E105", str(misfit), misfit.help)
        except ValidationError as error:
            for details in error.errors():
                details["loc"] = ("location", *details["loc"])
                self.complain(details)

    def read_users(self, values: Any) -> None:
        """Put a `ChosenUsers` in the place of each user table that names the source of a package."""
        tables = values.get("users") if isinstance(values, dict) else None
        if not isinstance(tables, dict):
            return
        for name, section in tables.items():
            path = ("users", name)
            if not isinstance(section, dict) or ("users", name, "source") not in self.places:
                continue
            place, source = self.places["users", name, "source"][0], section["source"]
            if not isinstance(source, str):
                self.mistake(place, "E105", "the name of a user source is expected here: {source: NAME}")
                continue
            try:
                kind = find_user_source(source)
            except OrchestratorError as error:
                self.mistake(place, "E118", str(error))
                continue
            if kind is None:
                help = meant(source, user_source_names()) or "install the package that has it"
                self.mistake(place, "E118", f"no installed package has a user source {source!r}", help)
                continue
            self.sources[name] = kind.settings
            own = {key: value for key, value in section.items() if key not in SOURCE_KEYS}
            try:
                base = UserSettings.model_validate({key: section[key] for key in SOURCE_KEYS[1:] if key in section})
                settings = kind.settings.model_validate(own)
                tables[name] = {"source": ChosenUsers(kind, settings, base.timeout, base.connections)}
            except ValidationError as error:
                for details in error.errors():
                    details["loc"] = (*path, *details["loc"])
                    self.complain(details)

    def read_push(self, values: Any) -> None:
        """Put a `ChosenPush` in the place of each entry of `push: services:`."""
        section = values.get("push") if isinstance(values, dict) else None
        if not isinstance(section, dict):
            return
        entries = section.get("services")
        if entries is None:
            section.pop("services", None)
        if not isinstance(entries, dict):
            return
        for name, entry in entries.items():
            path = ("push", "services", name)
            if isinstance(entry, dict) and (kind := self._push_kind(path, entry.get("type", name))) is not None:
                self.sections[path] = [*PUSH_KEYS, *(f.alias or key for key, f in kind.settings.model_fields.items())]
                try:
                    ours = {key: entry[key] for key in PUSH_KEYS[1:] if key in entry}
                    own = {key: value for key, value in entry.items() if key not in PUSH_KEYS}
                    common = PushEntrySettings.model_validate(ours)
                    settings = kind.settings.model_validate(own)
                    if isinstance(settings, HttpPushSettings):
                        nodes = {key: self.places[*path, key][0] for key in own}
                        self.diagnostics += settings.compile(self.document, nodes, own)
                    entries[name] = common.choose(name, kind, settings)
                except InvalidValue as misfit:
                    place, _ = self.places.get((*path, "apps")) or self.places[path]
                    self.mistake(place, "E106", str(misfit), misfit.help)
                except OrchestratorError as error:
                    self.mistake(self.places[path][0], "E118", str(error))
                except ValidationError as error:
                    for details in error.errors():
                        details["loc"] = (*path, *details["loc"])
                        self.complain(details)

    def _push_kind(self, path: tuple[str, ...], name: Any) -> PushServiceKind | None:
        """The kind of a push service: what `type:` says, else the name of the entry."""
        node, key = self.places.get((*path, "type")) or self.places[path]
        place = node if (*path, "type") in self.places else key or node
        if not isinstance(name, str):
            self.mistake(place, "E105", "the kind of a push service is expected here: type: http")
            return None
        try:
            kind = KINDS.get(name) or find_push_service(name)
        except OrchestratorError as error:
            self.mistake(place, "E118", str(error))
            return None
        if kind is None:
            known = [*KINDS, *push_service_names()]
            help = meant(name, known) or "install the package that has it"
            if place is not node:
                help = f"{help}; or say what it is: type: {' or '.join(KINDS)}"
            self.mistake(place, "E118", f"no installed package has a push service {name!r}", help)
        return kind

    def refuse_open_relay(self, values: Any) -> None:
        """`sip: trust:` may hold everybody only where a word says so."""
        sip = values.get("sip") if isinstance(values, dict) else None
        if not isinstance(sip, dict) or on_or_off(sip.get("open_relay")) == "on":
            return
        written = sip.get("trust")
        try:
            networks = [parse_network(text) for text in ([written] if isinstance(written, str) else written or ())]
        except (InvalidValue, TypeError):  # which is told elsewhere
            return
        if holds_everybody(networks):
            place = self.places["sip", "trust"]
            message = "trust: holds everybody, which makes an open relay: strangers call through your gateways"
            self.mistake(place[0], "E106", message, "name your own networks, or say so with  open_relay: on")

    def warnings(self, settings: Settings) -> Iterator[Diagnostic]:
        """What is odd in settings that can be used."""
        for position, network in enumerate(settings.sip.trust):
            flaw = trust_flaw(network)
            path = ("sip", "trust", position)
            place = self.places.get(path) or self.places.get(path[:-1])  # a list of one may be written as its item
            if flaw is not None and place is not None:
                yield replace(self._at(place[0], "W307", flaw.message, flaw.help), severity="warning")

    def push_places(self, settings: Settings) -> dict[str, Place]:
        """Where the entries of `push: services:` begin, by name, and their keys, by `name.key`."""
        found = {}
        for path, (node, key) in self.places.items():
            if path[:2] == ("push", "services") and 3 <= len(path) <= 4 and path[2] in settings.push.services:
                at = node if len(path) == 4 and isinstance(node, Scalar) else key or node
                found[".".join(map(str, path[2:]))] = Place(self.document.name, at.line, at.column)
        return found

    def service_places(self) -> dict[tuple[str | int, ...], Place]:
        """Where the entries of `services:` and all in them stand."""
        return {
            path[1:]: Place(self.document.name, node.line, node.column)
            for path, (node, _) in self.places.items()
            if path[:1] == ("services",) and len(path) > 1
        }

    def complain(self, details: ErrorDetails) -> None:
        """Note one of pydantic's complaints, unless it only says that a value is missing which could not be had."""
        path = details["loc"]
        if not any(flaw[: len(path)] == path for flaw in self.flawed):
            self.diagnostics.append(self.diagnostic(details))

    def diagnostic(self, details: ErrorDetails) -> Diagnostic:
        """One of pydantic's complaints, in the words and at the place of the user's file."""
        path = details["loc"]
        while path not in self.places:
            path = path[:-1]
        node, key = self.places[path]
        if details["type"] not in ("extra_forbidden", "missing") and (misspelt := _misspelt_source(node)) is not None:
            help = meant(misspelt.text.lower(), _SOURCES)
            return self._at(misspelt, "E101", f"unknown key {misspelt.text!r}", help)
        if details["type"] == "extra_forbidden" and key is not None:
            if path[:1] == ("location",) and self.store is not None:
                known = [*OURS, *self.store.model_fields]
            elif path[:1] == ("users",) and path[1] in self.sources:
                known = [*SOURCE_KEYS, *self.sources[str(path[1])].model_fields]
            else:
                known = self._keys_at(path[:-1])
            return self._at(key, "E101", f"unknown key {key.text!r}", meant(key.text, known))
        return self._at(node, *_words(details))

    def _keys_at(self, path: tuple[str | int, ...]) -> list[str]:
        """The keys that are known at a path of the file."""
        for known in sorted(self.sections, key=len, reverse=True):
            if path[: len(known)] == known:
                return self.sections[known]
        return _keys_at(path)

    def contradictions(self, settings: Settings) -> Iterator[Diagnostic]:
        """What cannot be used together, or not without a file."""
        tls = settings.sip.tls
        for position, listen in enumerate(settings.sip.listen):
            if listen.transport in SECURE and tls.certificate is None:
                place = self._item(("sip", "listen"), position)
                help = "add tls: {certificate: certificate.pem, key: key.pem} to sip:"
                yield self._at(place, "E106", f"{listen.transport} needs a certificate", help)
        yield from self._unreachable(settings)
        for key in ("certificate", "key", "ca"):
            path = getattr(tls, key)
            if path is not None and (reason := _unreadable(path)):
                yield self._at(self.places["sip", "tls", key][0], "E003", f"cannot read {path}: {reason}")

    def _unreachable(self, settings: Settings) -> Iterator[Diagnostic]:
        """URIs of gateways and servers that need a transport which is not listened on."""
        uris = {("gateways", name, "uri"): gateway.uri for name, gateway in settings.gateways.items()}
        uris |= {("freeswitch", name, "sip"): server.sip or "" for name, server in settings.freeswitch.items()}
        for path, uri in uris.items():
            flaw = transport_flaw(uri, settings.sip.transports_listened) if uri else None
            if flaw is not None:
                yield self._at(self.places[path][0], "E106", flaw.message, flaw.help)

    def _item(self, path: tuple[str, ...], position: int) -> Node:
        """An item of a list; a list of one may be written as its item."""
        place = self.places.get((*path, position)) or self.places[path]
        return place[0]


def _unreadable(path: Path) -> str:
    """Why a file cannot be read, '' when it can."""
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


_SOURCES = ("env", "default", "file")


def _misspelt_source(node: Node) -> Scalar | None:
    """The key of a map that stands where a single value is expected, when it was to be `env`, `default` or `file`."""
    if not isinstance(node, Entries) or not all(isinstance(value, Scalar) for _, value in node):
        return None
    keys = [key for key, _ in node if key.text not in _SOURCES]
    return next((key for key in keys if closest(key.text.lower(), _SOURCES) is not None), None)


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    """The keys the model knows at a path of the file."""
    if path[:1] == ("freeswitch",):
        return list(FreeSwitchSettings.model_fields)
    if path[:1] == ("gateways",):
        return list(GatewaySettings.model_fields)
    if path[:1] == ("users",):
        return list((SqlColumns if path[2:] == ("columns",) else UserSettings).model_fields)
    model: type[BaseModel] = Settings
    for key in path:
        if key in model.model_fields:
            annotation = model.model_fields[str(key)].annotation
            assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
            model = annotation
    return list(model.model_fields)


_SHAPES = {
    "missing": ("E115", "a key is missing here"),
    "model_type": ("E103", "a map is expected here"),
    "dict_type": ("E103", "a map is expected here"),
    "tuple_type": ("E103", "a list is expected here"),
    "string_type": ("E105", "a single value is expected here"),
    "path_type": ("E105", "a path is expected here"),
    "int_type": ("E105", "a number is expected here"),
    "too_short": ("E106", "this must not be empty"),
}
"""Pydantic's type of error → our code and words."""


_FROM_FILES = frozenset({"password", "secret", "token"})
"""Keys whose value may be read from a file."""

_SECRETS = frozenset({"password", "key", "secret", "token", "sql", "url"})
"""Keys whose values are in no message, whatever is wrong with them."""


def _words(details: ErrorDetails) -> tuple[str, str, str]:
    """Code, message and help for one error."""
    kind, context = details["type"], details.get("ctx", {})
    shown = "this secret" if _SECRETS.intersection(map(str, details["loc"])) else repr(details["input"])
    if kind == "too_short" and context.get("min_length", 1) > 1:
        return "E106", f"{shown} is too short", f"the least is {context['min_length']} characters"
    if kind in _SHAPES:
        return (*_SHAPES[kind], f"add {details['loc'][-1]}:" if kind == "missing" else "")
    if isinstance(invalid := context.get("error"), InvalidValue):
        return "E106", str(invalid), invalid.help
    if kind in ("int_parsing", "int_parsing_size"):
        return "E106", f"{shown} is not a whole number", ""
    if kind == "greater_than_equal":
        return "E106", f"{shown} is too small", f"the least is {context['ge']}"
    if kind == "less_than_equal":
        return "E106", f"{shown} is too large", f"the most is {context['le']}"
    if kind == "literal_error":
        known = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return "E106", f"{shown} is not known here", meant(str(details["input"]), known)
    return "E106", details["msg"], ""
