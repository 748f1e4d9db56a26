"""`users:` of the configuration: databases and sources of packages, and mistakes in them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from orchestrator.core.users import AskedUsers, HttpUsers
from orchestrator.errors import Diagnostic, InputError
from orchestrator.flow.language.program import Resources
from orchestrator.packages.user_source import UserSourceKind
from orchestrator.resources import asked_users, resolve
from orchestrator.runtime.sql_users import SqlTable
from orchestrator.settings import Settings, read_settings
from orchestrator.settings import reader as reader_module
from orchestrator.settings.users import read_users
from orchestrator.sip.digest import Secret

pytest.importorskip("sqlalchemy", reason="the extra `sql` is not installed")


class LdapSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str
    depth: int = 1


class Ldap:
    def __init__(self, settings: LdapSettings) -> None: ...
    def find(self, user: str, realm: str) -> Secret | None:
        return None

    def close(self) -> None: ...


LDAP = UserSourceKind("ldap", "A directory.", Ldap, LdapSettings)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "find_user_source", {"ldap": LDAP}.get)
    monkeypatch.setattr(reader_module, "user_source_names", lambda: ["ldap"])


def read(text: str, **environ: str) -> Settings:
    return read_settings("o.yml", text, environ)


def the_mistake(text: str) -> Diagnostic:
    with pytest.raises(InputError) as refused:
        read(text)
    (found,) = refused.value.diagnostics
    return found


def resolved(text: str, **environ: str) -> Any:
    settings = read(text, **environ)
    users: dict[str, dict[str, Any]] = {name: {} for name in settings.users}
    return resolve(settings, Resources(users=users), environ)


def test_a_database_with_all_keys() -> None:
    text = """users:
  db:
    sql: postgresql://sip@db/sip
    password: {env: DB}
    table: sip.people
    columns: {user: name, realm: null, ha1: null, password: pw}
    timeout: 500ms
    connections: 8
"""
    found = resolved(text, DB="secret")
    table = found.users["db"]
    assert isinstance(table, AskedUsers) and (table.name, table.timeout, table.limit) == ("db", 0.5, 2.5)
    sql = table.chosen.settings
    assert sql == SqlTable(
        "postgresql://sip@db/sip", "secret", "", "sip.people", (("user", "name"), ("password", "pw")), 0.5, 8
    )
    assert table.chosen.connections == 8
    assert asked_users(found) == [("db", table.chosen)]
    assert "secret" not in repr(found)


def test_two_readings_of_the_same_table_are_the_same() -> None:
    """So a reload keeps its connections."""
    text = "users: {db: {sql: 'mysql://sip@db/sip'}, dir: {source: ldap, url: 'ldap://x'}, web: {http: 'https://x/y'}}"
    first, second = resolved(text), resolved(text)
    assert first.users == second.users and isinstance(first.users["web"], HttpUsers)


def test_a_source_of_a_package() -> None:
    found = resolved("users: {staff: {source: ldap, url: 'ldap://x', depth: 3, timeout: 1s, connections: 2}}")
    chosen = found.users["staff"].chosen
    assert (chosen.kind, chosen.settings, chosen.timeout, chosen.connections) == (
        LDAP, LdapSettings(url="ldap://x", depth=3), 1.0, 2,
    )  # fmt: skip


def test_a_source_has_no_setting_of_ours() -> None:
    class Taken(BaseModel):
        connections: int

    with pytest.raises(ValueError, match="the user source 'mine' cannot have a setting 'connections': users: has"):
        UserSourceKind("mine", "", Ldap, Taken)


@pytest.mark.parametrize(
    ("text", "message", "help"),
    [
        ("{}", "a user table needs one of file, http, sql, source", "write {file: config/users.yaml}"),
        ("{file: a, sql: 'sqlite:///b'}", "a user table needs one of file, http, sql, source", None),
        ("{file: a, table: b}", "table: is for a database", "remove it, or name the database with sql:"),
        ("{http: 'https://a/b', timeout: 3s}", "timeout: is for a database", None),
        ("{sql: 'sqlite:///b', query: select 1, table: c}", "query: takes the place of table: and columns:", None),
        ("{sql: 'nonsense://u:hush@b'}", "this is not the URL of a database that is known", None),
        ("{sql: 'sqlite:///b', table: 'a; drop'}", "'a; drop' is not the name of a table or a column", None),
        ("{sql: 'sqlite:///b', columns: {usr: x}}", "unknown key 'usr'", "did you mean 'user'?"),
        ("{sql: 'sqlite:///b', colums: {}}", "unknown key 'colums'", "did you mean 'columns'?"),
        ("{sql: 'sqlite:///b', connections: 0}", "'0' is too small", "the least is 1"),
        ("{source: ldpa, url: x}", "no installed package has a user source 'ldpa'", "did you mean 'ldap'?"),
        ("{source: ldap}", "a key is missing here", "add url:"),
        ("{source: ldap, url: x, dept: 3}", "unknown key 'dept'", "did you mean 'depth'?"),
        ("{source: ldap, url: x, depth: deep}", "'deep' is not a whole number", ""),
        ("{source: ldap, url: x, timeout: 3}", "'3' is not a duration", "write 3ms or 3s"),
        ("{source: null}", "the name of a user source is expected here: {source: NAME}", ""),
    ],
)
def test_mistakes_are_named_where_they_stand(text: str, message: str, help: str | None) -> None:
    found = the_mistake(f"users:\n  db: {text}\n")
    assert (found.message, found.line) == (message, 2) and "hush" not in str(found)
    assert help is None or found.help == help


def test_a_map_names_the_algorithms_of_a_file() -> None:
    hashes = f"{{SHA-512-256: {'a' * 64}, MD5: {'b' * 32}}}"
    found = read_users("users.yaml", f"carol: {{ha1: {hashes}}}\n", {}).users["carol"]
    assert found == Secret(ha1={"SHA-512-256": "a" * 64, "MD5": "b" * 32})
    with pytest.raises(InputError):
        read_users("users.yaml", f"carol: {{ha1: {{SHA-1: {'a' * 40}}}}}\n", {})


def test_a_database_of_a_flow_that_cannot_be_used_is_left_out() -> None:
    settings = read("")
    found = resolve(settings, Resources(users={"db": {"sql": "nonsense://u:hush@b"}, "ok": {"sql": "sqlite:///x"}}), {})
    assert list(found.users) == ["ok"]
    (problem,) = found.problems
    assert problem.startswith("user table db is left out: this is not the URL") and "hush" not in problem
