"""Servers, gateways and secrets of the configuration and of the flow files, put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.flow.language.program import Resources
from orchestrator.flow.loader import Source, load_sources
from orchestrator.resources import known_resources, resolve
from orchestrator.settings import Settings, read_settings

CONFIGURED = read_settings(
    "o.yml",
    "freeswitch: {fs1: {host: 10.0.0.9, password: site}}\ngateways: {telco: {uri: 'sip:gw.example.net'}}",
    {},
)


def test_what_the_configuration_declares_is_known_to_the_check() -> None:
    known = known_resources(CONFIGURED)
    assert known.freeswitch == {"fs1": {"host": "10.0.0.9", "sip": "sip:10.0.0.9:5080"}}
    assert known.gateways == {"telco": {"uri": "sip:gw.example.net"}}
    assert "site" not in repr(known)


def test_the_configuration_wins_over_the_flow_files() -> None:
    flows = Resources(
        freeswitch={
            "fs1": {"host": "freeswitch", "password": {"env": "NOT_SET"}},
            "fs2": {"host": "other", "port": 9021, "password": {"env": "ESL"}, "sip": "sip:other:5070"},
        }
    )
    resolved = resolve(CONFIGURED, flows, {"ESL": "s3cret"})
    assert resolved.problems == ()
    assert resolved.freeswitch["fs1"].host == "10.0.0.9"
    second = resolved.freeswitch["fs2"]
    assert (second.host, second.port, second.sip_uri) == ("other", 9021, "sip:other:5070")
    assert second.password.get_secret_value() == "s3cret"


def test_a_gateway_of_the_configuration_stands_for_the_one_of_a_flow_file() -> None:
    text = "flowlang: 1\ngateways: {telco: {uri: 'sip:sample.example'}, other: {uri: 'sip:other.example'}}\n"
    program, _ = load_sources([Source("a.flow.yaml", text)], known_resources(CONFIGURED))
    assert program.resources.gateways == {
        "telco": {"uri": "sip:gw.example.net"},
        "other": {"uri": "sip:other.example"},
    }


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({"host": "a", "password": {"env": "NOT_SET"}}, "environment variable NOT_SET is not set"),
        ({"host": "a", "password": {"env": "EMPTY"}}, "environment variable EMPTY is not set"),
        ({"host": "a", "password": {"file": "/nowhere/x"}}, "cannot read /nowhere/x: No such file or directory"),
        ({"host": "a", "password": "ClueCon"}, "the factory password is refused for a"),
        ({"host": "a", "password": "x", "port": 0}, "port: Input should be greater than or equal to 1"),
    ],
)
def test_a_server_that_cannot_be_reached_so_is_left_out_and_named(server: dict[str, object], problem: str) -> None:
    resolved = resolve(Settings(), Resources(freeswitch={"fs9": server}), {"EMPTY": ""})
    assert resolved.freeswitch == {}
    (found,) = resolved.problems
    assert found.startswith(f"FreeSWITCH server fs9 is left out: {problem}")


def test_secrets_come_from_environment_and_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    secrets = {"KEY": {"env": "KEY"}, "TOKEN": {"file": str(tmp_path / "token")}, "GONE": {"env": "GONE"}}
    resolved = resolve(Settings(), Resources(secrets=secrets), {"KEY": "k3y"})
    assert resolved.secrets == {"KEY": "k3y", "TOKEN": "t0ken"}
    assert resolved.problems == ("secret GONE has no value: environment variable GONE is not set",)
    assert "k3y" not in repr(resolved)


def test_a_gateway_needs_its_uri() -> None:
    for text, message in (("{}", "a key is missing here"), ("{uri: 'tel:1'}", "'tel:1' is not a sip: URI")):
        with pytest.raises(InputError, match=message):
            read_settings("o.yml", f"gateways: {{telco: {text}}}", {})
