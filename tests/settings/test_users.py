"""The file of a user table, and where tables and gateways come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.users import HttpUsers, LocalUsers
from orchestrator.errors import InputError
from orchestrator.flow.language.program import Resources
from orchestrator.flow.loader import Source, load_sources
from orchestrator.resources import at_site, known_resources, resolve
from orchestrator.settings import Settings, read_settings
from orchestrator.settings.users import load_users, read_users
from orchestrator.sip.digest import Secret

MD5 = "5f4dcc3b5aa765d61d8327deb882cf99"
SHA = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"


def users(text: str, **environ: str) -> dict[str, Secret]:
    return dict(read_users("users.yaml", text, environ).users)


def mistakes(text: str, **environ: str) -> list[str]:
    with pytest.raises(InputError) as refused:
        read_users("users.yaml", text, environ)
    return [str(diagnostic) for diagnostic in refused.value.diagnostics]


def test_every_way_to_write_a_user() -> None:
    found = users(
        f"alice: 0123\nbob: {{password: 'no'}}\ncarol: {{password: {{env: CAROL}}}}\nerin: {{env: CAROL}}\n"
        f"dave: {{ha1: {MD5}}}\nfay: {{ha1: [{MD5}, {SHA.upper()}]}}\n0049301: x\n",
        CAROL="geheim",
    )
    assert found == {
        "alice": Secret("0123"),
        "bob": Secret("no"),
        "carol": Secret("geheim"),
        "erin": Secret("geheim"),
        "dave": Secret(ha1={"MD5": MD5}),
        "fay": Secret(ha1={"MD5": MD5, "SHA-256": SHA}),
        "0049301": Secret("x"),
    }


@pytest.mark.parametrize("text", ["", "# nobody yet\n", "{}"])
def test_a_table_may_be_empty(text: str) -> None:
    assert users(text) == {}


@pytest.mark.parametrize(
    ("text", "algorithms"),
    [
        ("a: x", ("SHA-512-256", "SHA-256", "MD5")),
        (f"a: {{ha1: {MD5}}}", ("MD5",)),
        (f"a: {{ha1: {SHA}}}", ("SHA-256",)),
    ],
)
def test_a_hash_serves_its_own_algorithm(text: str, algorithms: tuple[str, ...]) -> None:
    assert users(text)["a"].algorithms == algorithms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- alice", "users.yaml:1:1: error E103: a map of users is expected here"),
        ("alice:", "users.yaml:1:1: error E105: the password of 'alice' is expected here"),
        ("alice: [x]", "users.yaml:1:8: error E105: the password of 'alice' is expected here"),
        ("alice: {password: {env: NOT_SET}}", "users.yaml:1:19: error E105: environment variable NOT_SET is not set"),
        ("alice: {ha1: geheim}", "users.yaml:1:14: error E106: ha1 takes 32 (MD5) or 64 (SHA-256) hexadecimal digits"),
        ("alice: x\nalice: y", "users.yaml:2:1: error E104: 'alice' is written twice"),
    ],
)
def test_mistakes_have_a_place_and_no_password(text: str, message: str) -> None:
    (found,) = mistakes(text)
    assert found.split(": error")[0].rpartition(":")[0] == message.split(": error")[0].rpartition(":")[0]
    assert found.split(": error")[1] == message.split(": error")[1]
    assert "geheim" not in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"E003: this cannot be read: No such file or directory"):
        load_users(tmp_path / "users.yaml", {})


# --- configuration and flow files together ----------------------------------------------------------------------------


def resolved(flows: Resources, text: str = "", **environ: str) -> Any:
    return resolve(read_settings("o.yml", text, {}), flows, environ)


def test_tables_come_from_files_and_web_services(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    path.write_text("alice: {env: PW}")
    flows = Resources(users={"local": {"file": str(path)}, "web": {"http": "https://u.example.com"}})
    found = resolved(flows, PW="x")
    assert found.users == {"local": LocalUsers({"alice": Secret("x")}), "web": HttpUsers("https://u.example.com")}
    assert found.problems == ()


def test_a_table_with_a_mistake_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    path.write_text("alice: geheim\nbob: {ha1: 1}")
    with pytest.raises(InputError) as caught:
        resolved(Resources(users={"local": {"file": str(path)}}))
    assert str(caught.value).startswith(f"{path}:2:12: error E106")
    assert "geheim" not in str(caught.value)


def test_the_configurations_tables_win_and_are_known_to_the_check() -> None:
    settings = read_settings("o.yml", "users: {local: {http: 'https://site'}}", {})
    assert known_resources(settings).users == {"local": {"http": "https://site"}}
    found = resolve(settings, Resources(users={"local": {"file": "users.yaml"}}), {})
    assert found.users == {"local": HttpUsers("https://site")}


@pytest.mark.parametrize("text", ["users: {a: {}}", "users: {a: {file: x, http: 'http://y'}}"])
def test_a_table_of_the_configuration_has_one_source(text: str) -> None:
    with pytest.raises(InputError, match="a user table needs one of file, http"):
        read_settings("o.yml", text, {})


def test_unknown_keys_of_a_table_are_named() -> None:
    with pytest.raises(InputError, match=r"o\.yml:1:13: error E101: unknown key 'fil'"):
        read_settings("o.yml", "users: {a: {fil: x}}", {})


GATEWAYS = """\
flowlang: 1
gateways:
  telco: {uri: 'sip:a.example', user: us, password: {env: TELCO}}
  plain: {uri: 'sip:b.example'}
flows: {f: {on: invite, do: [relay: {gateways: [telco, plain]}]}}
"""


def test_gateways_get_their_passwords_with_the_program() -> None:
    program, _ = load_sources([Source("f.flow.yaml", GATEWAYS)])
    found = at_site(program, resolve(Settings(), program.resources, {"TELCO": "geheim"}))
    assert found.resources.gateways == {
        "telco": {"uri": "sip:a.example", "user": "us", "password": "geheim", "probe": 30.0},
        "plain": {"uri": "sip:b.example", "probe": 30.0},
    }


def test_a_gateway_without_its_password_is_still_there() -> None:
    program, _ = load_sources([Source("f.flow.yaml", GATEWAYS)])
    found = resolve(Settings(), program.resources, {})
    assert found.gateways["telco"] == {"uri": "sip:a.example", "user": "us", "probe": 30.0}
    assert found.problems == ("gateway telco has no password: environment variable TELCO is not set",)


def test_the_configurations_gateway_wins_as_a_whole() -> None:
    settings = read_settings("o.yml", "gateways: {telco: {uri: 'sip:site.example', user: me, password: pw}}", {})
    program, _ = load_sources([Source("f.flow.yaml", GATEWAYS)], known_resources(settings))
    found = resolve(settings, program.resources, {})
    assert found.gateways["telco"] == {"uri": "sip:site.example", "user": "me", "password": "pw", "probe": 30.0}
    assert found.problems == ()
    assert "pw" not in repr(settings) + repr(found)


def test_a_table_that_only_a_flow_names_may_be_missing() -> None:
    """The shipped flows start in a folder without users.yaml: that table lets nobody in, and the log says so."""
    text = "flowlang: 1\nusers: {local: {file: nowhere/users.yaml}}\nflows: {f: {on: register, do: [reply: 403]}}\n"
    program, _ = load_sources([Source("f.flow.yaml", text)])
    found = resolve(Settings(), program.resources, {})
    assert found.users == {}
    assert found.problems == ("user table local is left out: there is no file nowhere/users.yaml",)
    with pytest.raises(InputError, match="E003"):
        resolve(read_settings("o.yml", "users: {local: {file: nowhere/users.yaml}}", {}), program.resources, {})
