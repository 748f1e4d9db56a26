"""What the configuration and the flow files say together: FreeSWITCH servers, gateways, user tables and secrets.

A flow file may name the servers and gateways it needs, so that it is complete by itself; the configuration of a site
names where they really are. Where both do, the configuration wins. Secrets of flow files are references
(`{env: NAME}`, `{file: path}`); they are read here, once, when the program starts or is loaded anew.

A password or secret that is missing is no reason to refuse all calls: it becomes a line in `problems`, the server is
left out, and `flow.unset` says what becomes of flows that need the secret. A file of users with a mistake is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.core.probes import EVERY
from orchestrator.core.users import AskedUsers, HttpUsers, UserTable
from orchestrator.flow.language.program import Program, Resources
from orchestrator.packages.user_source import ChosenUsers
from orchestrator.runtime.sql_users import SQL, SqlTable, driver_flaw
from orchestrator.settings import FreeSwitchSettings, InvalidValue, Settings, guarded, read_secret
from orchestrator.settings.model import UserSettings
from orchestrator.settings.users import load_users


@dataclass(frozen=True, slots=True)
class Resolved:
    """`problems` are sentences for the log, without secrets."""

    freeswitch: Mapping[str, FreeSwitchSettings] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    gateways: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """Name → uri and, where there are, user, password and realm."""
    users: Mapping[str, UserTable] = field(default_factory=dict, repr=False)
    problems: tuple[str, ...] = ()


def known_resources(settings: Settings) -> Resources:
    """The names the configuration declares, for the check of the flow files."""
    return Resources(
        freeswitch={name: {"host": server.host, "sip": server.sip_uri} for name, server in settings.freeswitch.items()},
        gateways={name: {"uri": gateway.uri} for name, gateway in settings.gateways.items()},
        users={name: _declared(table) for name, table in settings.users.items()},
        transports=settings.sip.transports_listened,
        push_services=tuple(settings.push.services),
    )


def _declared(table: UserSettings) -> Mapping[str, Any]:
    """A table as a flow file would name it, without passwords."""
    if table.source is not None:
        return {"source": table.source.kind.name}
    return {name: value for name in ("file", "http", "sql") if (value := getattr(table, name)) is not None}


def at_site(program: Program, resolved: Resolved) -> Program:
    """The program with the gateways as they are here: a call that runs keeps those of its own program."""
    return replace(program, resources=replace(program.resources, gateways=resolved.gateways))


def user_files(settings: Settings, resources: Resources) -> list[Path]:
    """The files of all user tables that are files, each once. One that only a flow file names may be missing."""
    tables = {name: _table(settings, name, written) for name, written in resources.users.items()}
    files = {name: Path(table["file"]) for name, table in tables.items() if "file" in table}
    return list(dict.fromkeys(file for name, file in files.items() if name in settings.users or file.exists()))


def resolve(settings: Settings, resources: Resources, environ: Mapping[str, str]) -> Resolved:
    """Servers, users and secrets with their values. `resources` are those of a checked program.

    Raises:
        InputError: a file of users cannot be read or has a mistake.
    """
    problems: list[str] = []
    servers = dict(settings.freeswitch)
    for name, written in resources.freeswitch.items():
        if name not in servers:
            try:
                servers[name] = _server(written, environ)
            except InvalidValue as invalid:
                problems.append(f"FreeSWITCH server {name} is left out: {invalid}")
    secrets: dict[str, str] = {}
    for name, reference in resources.secrets.items():
        try:
            secrets[name] = _secret(reference, environ)
        except InvalidValue as invalid:
            problems.append(f"secret {name} has no value: {invalid}")
    gateways = _gateways(settings, resources, environ, problems)
    users = _users(settings, resources, environ, problems)
    return Resolved(servers, secrets, gateways, users, tuple(problems))


def _gateways(
    settings: Settings, resources: Resources, environ: Mapping[str, str], problems: list[str]
) -> dict[str, dict[str, Any]]:
    """All gateways, probed unless they say otherwise. One without its password is still called: it may authenticate us
    by our address."""
    found: dict[str, dict[str, Any]] = {}
    for name, written in resources.gateways.items():
        site = settings.gateways.get(name)
        values = site.values() if site is not None else {key: v for key, v in written.items() if v is not None}
        try:
            if "password" in values:
                values["password"] = _secret(values["password"], environ)
        except InvalidValue as invalid:
            problems.append(f"gateway {name} has no password: {invalid}")
            del values["password"]
        found[name] = {"probe": EVERY, **values}
    return found


def _table(settings: Settings, name: str, written: Mapping[str, Any]) -> Mapping[str, Any]:
    """A user table as the configuration declares it, else as the flow file does."""
    site = settings.users.get(name)
    return _declared(site) if site is not None else written


def _users(
    settings: Settings, resources: Resources, environ: Mapping[str, str], problems: list[str]
) -> dict[str, UserTable]:
    """User tables. One that only a flow file names and that is not here is left out: `auth:` lets nobody in by it."""
    found: dict[str, UserTable] = {}
    for name, written in resources.users.items():
        table = _table(settings, name, written)
        if "http" in table:
            found[name] = HttpUsers(table["http"])
        elif name not in settings.users and "sql" in table and (flaw := driver_flaw(table["sql"])):
            problems.append(f"user table {name} is left out: {flaw}")
        elif "file" not in table:
            chosen = _chosen(settings.users.get(name) or UserSettings(sql=table["sql"]))
            found[name] = AskedUsers(name, chosen, chosen.timeout)
        elif name in settings.users or Path(table["file"]).exists():
            found[name] = load_users(Path(table["file"]), environ)
        else:
            problems.append(f"user table {name} is left out: there is no file {table['file']}")
    return found


def _chosen(table: UserSettings) -> ChosenUsers:
    """A table that is a database or the source of a package."""
    if table.source is not None:
        return table.source
    assert table.sql is not None
    columns = tuple((ours, known) for ours, known in table.columns.model_dump().items() if known is not None)
    password = table.password.get_secret_value() if table.password is not None else None
    database = SqlTable(
        table.sql, password, table.query or "", table.table, columns, table.timeout, table.connections
    )  # fmt: skip
    return ChosenUsers(SQL, database, table.timeout, table.connections)


def asked_users(resolved: Resolved) -> list[tuple[str, ChosenUsers]]:
    """The tables that are databases or sources of packages, by name."""
    return [(name, table.chosen) for name, table in resolved.users.items() if isinstance(table, AskedUsers)]


def _server(written: Mapping[str, Any], environ: Mapping[str, str]) -> FreeSwitchSettings:
    values = {key: value for key, value in written.items() if value is not None}
    if "password" in values:
        values["password"] = _secret(values["password"], environ)
    try:
        return guarded(FreeSwitchSettings.model_validate(values))
    except ValidationError as error:
        raise InvalidValue("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from None


def _secret(reference: str | Mapping[str, str], environ: Mapping[str, str]) -> str:
    """The value behind `{env: NAME}` or `{file: path}`; a plain text is the value itself. Raises InvalidValue."""
    if isinstance(reference, str):
        return reference
    if "file" in reference:
        return read_secret(Path(reference["file"]))
    name = reference["env"]
    if not environ.get(name):
        raise InvalidValue(f"environment variable {name} is not set")
    return environ[name]
