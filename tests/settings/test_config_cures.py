"""Mistakes in the configuration and in a user table, each with the one cure that works."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import Diagnostic, InputError
from orchestrator.settings import read_settings
from orchestrator.settings.users import read_users
from orchestrator.site import check_site

ROOT = Path(__file__).parents[2]


def the_mistake(text: str, environ: dict[str, str] | None = None) -> Diagnostic:
    with pytest.raises(InputError) as caught:
        read_settings("o.yml", text, environ or {})
    (found,) = caught.value.diagnostics
    return found


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("sip: {advertise: 'sip:203.0.113.7'}", "write 203.0.113.7"),
        ("sip: {advertise: 'sip:me@203.0.113.7:5070;lr'}", "write 203.0.113.7:5070"),
        ("sip: {advertise: 'udp:203.0.113.7'}", "write 203.0.113.7"),
        ("sip: {advertise: 'https://sip.example.com/'}", "write sip.example.com"),
        ("sip: {advertise: '::1'}", "write [::1]:5060"),
        ("sip: {advertise: 10.0.0.300}", "write 203.0.113.7 or 203.0.113.7:5060"),
        ("sip: {advertise: 0.0.0.0}", "write the address phones see us at"),
        ("sip: {listen: 'sip:10.0.0.1:5070'}", "write udp:10.0.0.1:5070"),
        ("sip: {listen: 10.0.0.1}", "write udp:10.0.0.1:5060"),
        ("sip: {listen: 5070}", "write udp:0.0.0.0:5070"),
        ("sip: {domains: ['sip:Example.com:5060']}", "write Example.com"),
        ("sip: {trust: ['sip:10.0.0.1']}", "write 10.0.0.1"),
        ("sip: {timers: {t1: 500 msec}}", "write 500ms"),
        ("admin: {listen: 'http://127.0.0.1:8080/'}", "write 127.0.0.1:8080"),
        ("users: {a: {http: users.example.com/x}}", "write https://users.example.com/x"),
        ("gateways: {a: {uri: 'gw.example.net:5070'}}", "write sip:gw.example.net:5070"),
        ("gateways: {a: {uri: 'sip:gw;transport=ws'}}", "write sip:gw"),
        ("freeswitch: {a: {host: 'localhost:8021'}}", "write localhost; the port 8021 has a key of its own"),
    ],
)
def test_addresses(text: str, help: str) -> None:
    found = the_mistake(text)
    assert (found.code, found.help) == ("E106", help)


@pytest.mark.parametrize("key", ["location", "admin: {listen"])
@pytest.mark.parametrize(
    ("value", "code", "help"),
    [
        ("{env: X, defualt: y}", "E101", "did you mean 'default'?"),
        ("{env: X, Default: y}", "E101", "did you mean 'default'?"),
        ("{env: X, default: y, note: z}", "E101", "known: default, env"),
        ("{evn: X}", "E101", "did you mean 'env'?"),
        ("{ENV: X}", "E101", "did you mean 'env'?"),
        ("{evn: X, defualt: y}", "E101", "did you mean 'env'?"),
        ("'${env.X}'", "E106", "write {env: X}, without quotes around it"),
        ("'${X}'", "E106", "write {env: X}, without quotes around it"),
        ("'${X:-y}'", "E106", "write {env: X, default: y}, without quotes around it"),
        ("'{{ env.X }}'", "E106", "write {env: X}, without quotes around it"),
        ("'{env: X}'", "E106", "write {env: X}, without quotes around it"),
        ("$X", "E106", "write {env: X}, without quotes around it"),
        ("{env: $X}", "E106", "write {env: X}"),
        ("{env: '${X}'}", "E106", "write {env: X}"),
        ("\xa0x", "", "there is a no-break space (U+00A0) in it: type an ordinary space"),
    ],
)
def test_the_environment(key: str, value: str, code: str, help: str) -> None:
    found = the_mistake(f"{key}: {value}{'}' if '{' in key else ''}\n")
    assert found.code == code or not code
    assert found.help == help


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("sip:\n  trust: [10.0.0.0/8, 0.0.0.0/0]\n  open_relay: on\n", (2, 23), "0.0.0.0/0 trusts everybody"),
        ("sip:\n  trust: '::/0'\n  open_relay: on\n", (2, 10), "::/0 trusts everybody"),
        ("sip:\n  trust:\n    - 128.0.0.0/1\n", (3, 7), "128.0.0.0/1 trusts a large part of the Internet"),
        ("sip: {trust: [{env: X}], open_relay: on}\n", (1, 15), "0.0.0.0/0 trusts everybody"),
    ],
)
def test_who_trusts_everybody_is_warned(text: str, place: tuple[int, int], message: str) -> None:
    settings = read_settings("o.yml", text, {"X": "0.0.0.0/0"})
    (found,) = settings.warnings
    assert (found.line, found.column) == place
    assert str(found).endswith(f"warning W307: {message}") and "your own phones" in found.help
    assert [each for each in check_site(settings, {}, [ROOT / "flows"])[0] if each.code != "W310"] == [found]
    assert settings == read_settings("o.yml", text, {"X": "0.0.0.0/0"})


def test_who_trusts_his_own_network_is_not() -> None:
    assert read_settings("o.yml", "sip: {trust: [10.0.0.0/8, 203.0.113.0/24, '::1']}", {}).warnings == ()


def test_a_password_may_look_like_anything_in_quotes() -> None:
    settings = read_settings("o.yml", "freeswitch: {a: {host: localhost, password: '$ecret'}}", {})
    assert settings.freeswitch["a"].password.get_secret_value() == "$ecret"


@pytest.mark.parametrize("name", ["alice@example.com", "sip:alice@example.com", "'sip:alice'"])
def test_a_user_is_named_without_the_domain(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_users("users.yaml", f"bob: secret\n{name}: secret\n", {})
    (found,) = caught.value.diagnostics
    assert (found.line, found.column, found.code) == (2, 1, "E106")
    assert found.help.startswith("write alice:") and "secret" not in str(found)
