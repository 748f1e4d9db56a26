"""The configuration: what it may say, what it says when nothing is said, and how mistakes are named."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator.errors import Diagnostic, InputError
from orchestrator.flow.language.yaml import Entries, Node, parse
from orchestrator.settings import (
    DEFAULT_FILE,
    FACTORY_PASSWORD,
    Address,
    FreeSwitchSettings,
    Listen,
    Settings,
    load_settings,
    read_settings,
)

REPOSITORY = Path(__file__).parents[2]
SHIPPED = REPOSITORY / DEFAULT_FILE


def read(text: str, **environ: str) -> Settings:
    return read_settings("o.yml", text, environ)


def mistakes(text: str, **environ: str) -> list[Diagnostic]:
    with pytest.raises(InputError) as refused:
        read(text, **environ)
    return list(refused.value.diagnostics)


def the_mistake(text: str, **environ: str) -> Diagnostic:
    (found,) = mistakes(text, **environ)
    return found


# --- the shipped file and the model tell the same story ---------------------------------------------------------------


def test_the_shipped_file_says_the_defaults() -> None:
    shipped = load_settings(SHIPPED, {"FREESWITCH_HOST": "127.0.0.1"})
    assert shipped.freeswitch == {"fs1": FreeSwitchSettings()}
    assert load_settings(SHIPPED, {}).freeswitch == {}, "a server whose host is null is not there"
    assert shipped.model_copy(update={"freeswitch": {}}) == Settings() == read("")


def keys_of_model(model: type[BaseModel], path: str = "") -> set[str]:
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(path + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= keys_of_model(field.annotation, f"{path}{name}.")
    return keys


def keys_of_file(node: Node | None, path: str = "") -> set[str]:
    if not isinstance(node, Entries) or "env" in node:
        return set()
    keys: set[str] = set()
    for key, value in node:
        keys |= {path + key.text} | keys_of_file(value, f"{path}{key.text}.")
    return keys


def test_the_shipped_file_has_every_key_of_the_model_and_no_other() -> None:
    written = keys_of_file(parse("shipped", SHIPPED.read_text()).root)
    server = {key.removeprefix("freeswitch.fs1.") for key in written if key.startswith("freeswitch.fs1.")}
    assert server == keys_of_model(FreeSwitchSettings)
    assert {key for key in written if not key.startswith("freeswitch.")} == keys_of_model(Settings)


def test_the_shipped_file_explains_every_key() -> None:
    """Each block between empty lines has a comment above its keys, or each of its lines has one."""
    for block in SHIPPED.read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if not line.endswith(":")]
        assert lines[0].lstrip().startswith("#") or all("#" in line for line in lines), block


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "transport", "host", "port"),
    [
        ("udp:0.0.0.0:5060", "udp", "0.0.0.0", 5060),
        ("udp:[::]:5062", "udp", "::", 5062),
        ("udp:[2001:db8::1]:65535", "udp", "2001:db8::1", 65535),
        ("udp:sip.example.com:5060", "udp", "sip.example.com", 5060),
        ("udp:127.0.0.1:0", "udp", "127.0.0.1", 0),
    ],
)
def test_listen(written: str, transport: str, host: str, port: int) -> None:
    (listen,) = read(f"sip: {{listen: ['{written}']}}").sip.listen
    assert listen == Listen(transport, Address(host, port))
    assert str(listen) == written


@pytest.mark.parametrize(
    ("written", "message", "help"),
    [
        ("sctp:0.0.0.0:5060", "unknown transport 'sctp'", "known: udp, tcp, tls, ws, wss"),
        ("upd:0.0.0.0:5060", "unknown transport 'upd'", "did you mean 'udp'?"),
        ("quic:0.0.0.0:5060", "unknown transport 'quic'", "known: udp, tcp, tls, ws, wss"),
        ("0.0.0.0:5060", "'0.0.0.0:5060' does not say what to listen on", "write udp:0.0.0.0:5060"),
        ("udp:0.0.0.0", "'0.0.0.0' is not an address and a port", "write udp:0.0.0.0:5060"),
        ("udp:0.0.0.0:70000", "'0.0.0.0:70000' is not an address and a port", "write udp:0.0.0.0:5060"),
        ("udp:::1:5060", "'::1:5060' is not an address and a port", "write [::1]:5060"),
        ("udp:[::g]:5060", "'[::g]:5060' is not an address and a port", "write udp:0.0.0.0:5060"),
        ("udp:[:::]:5060", "':::' is not an IPv6 address", "write [::1]:5060"),
        ("udp:a b:5060", "'a b:5060' is not an address and a port", "write udp:0.0.0.0:5060"),
        ("udp:127.0.0.1:٥", "'127.0.0.1:٥' is not an address and a port", "write udp:0.0.0.0:5060"),
    ],
)
def test_what_cannot_be_listened_on_is_refused_by_name(written: str, message: str, help: str) -> None:
    found = the_mistake(f"sip:\n  listen:\n    - '{written}'\n")
    assert (found.line, found.column, found.code) == (3, 7, "E106")
    assert (found.message, found.help) == (message, help)


@pytest.mark.parametrize(
    ("written", "seconds"), [("500ms", 0.5), ("4s", 4.0), ("3m", 180.0), ("2h", 7200.0), ("0.5s", 0.5)]
)
def test_durations(written: str, seconds: float) -> None:
    assert read(f"sip: {{timers: {{c: {written}}}}}").sip.timers.c == seconds


@pytest.mark.parametrize("written", ["30", "4 s", "4x", "-4s", "0s", "s", "''", "1:30", "null", "[4s]"])
def test_what_is_no_duration(written: str) -> None:
    found = the_mistake(f"sip: {{timers: {{t1: {written}}}}}")
    assert (found.line, found.column, found.code) == (1, 20, "E106")


def test_a_bare_number_is_offered_both_units() -> None:
    found = the_mistake("sip: {timers: {t1: 500}}")
    assert (found.message, found.help, found.length) == ("'500' is not a duration", "write 500ms or 500s", 3)


def test_one_value_stands_for_a_list_of_one() -> None:
    settings = read("sip: {listen: 'udp:[::]:5060', domains: Example.ORG, trust: 10.1.2.3}\nflows: pbx")
    assert settings.sip.listen == (Listen("udp", Address("::", 5060)),)
    assert settings.sip.domains == ("example.org",)
    assert settings.sip.trust == (ip_network("10.1.2.3/32"),)
    assert settings.flows == (Path("pbx"),)


def test_advertise_takes_a_host_with_or_without_a_port() -> None:
    assert read("sip: {advertise: 203.0.113.7}").sip.advertise == Address("203.0.113.7", 0)
    assert read("sip: {advertise: '[2001:db8::1]:5080'}").sip.advertise == Address("2001:db8::1", 5080)
    assert read("sip: {advertise: ~}").sip.advertise is None


def test_phone_numbers_and_passwords_stay_as_written() -> None:
    server = read("freeswitch: {fs1: {password: 0123}, fs2: {password: 1:30}, fs3: {password: no}}").freeswitch
    assert [one.password.get_secret_value() for one in server.values()] == ["0123", "1:30", "no"]


def test_where_a_server_takes_calls_follows_its_host() -> None:
    settings = read(
        "freeswitch: {a: {host: 10.0.0.9, password: x}, b: {host: '::1'}, c: {sip: 'sip:pbx.example.com:5060'}}"
    )
    uris = [server.sip_uri for server in settings.freeswitch.values()]
    assert uris == ["sip:10.0.0.9:5080", "sip:[::1]:5080", "sip:pbx.example.com:5060"]


# --- environment and files --------------------------------------------------------------------------------------------


def test_values_come_from_the_environment() -> None:
    text = "freeswitch: {fs1: {host: {env: HOST, default: 127.0.0.1}, password: {env: ESL_PASSWORD}}}"
    server = read(text, HOST="freeswitch", ESL_PASSWORD="s3cret").freeswitch["fs1"]
    assert (server.host, server.password.get_secret_value()) == ("freeswitch", "s3cret")
    assert read(text, HOST="", ESL_PASSWORD="s3cret").freeswitch["fs1"].host == "127.0.0.1"


def test_a_variable_that_is_not_set_is_named() -> None:
    found = the_mistake("freeswitch:\n  fs1:\n    password: {env: ESL_PASSWORD}\n")
    assert str(found) == "o.yml:3:21: error E106: environment variable ESL_PASSWORD is not set"
    assert found.help == "set it, or give a default: {env: ESL_PASSWORD, default: ...}"


def test_a_bad_value_of_a_variable_or_its_default_is_shown_where_it_is_asked_for() -> None:
    found = the_mistake("log:\n  level: {env: LOG_LEVEL, default: info}\n", LOG_LEVEL="loud")
    assert (found.line, found.column, found.message) == (2, 10, "'loud' is not known here")
    found = the_mistake("log:\n  level: {env: LOG_LEVEL, default: infoo}\n")
    assert (found.line, found.column, found.help) == (2, 36, "did you mean 'info'?")


def test_a_password_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "esl"
    secret.write_text("s3cret\n")
    server = read(f"freeswitch: {{fs1: {{host: pbx, password: {{file: '{secret}'}}}}}}").freeswitch["fs1"]
    assert server.password.get_secret_value() == "s3cret"
    found = the_mistake(f"freeswitch: {{fs1: {{password: {{file: '{secret}.missing'}}}}}}")
    assert found.code == "E003" and found.message.endswith("esl.missing: No such file or directory")


def test_a_directory_user_and_the_patience_with_a_server() -> None:
    text = "freeswitch: {fs1: {user: flows@pbx.local, password: x, timeout: 800ms, silence: 3s, lost_after: 1m}}"
    server = read(text).freeswitch["fs1"]
    assert (server.user, server.timeout, server.silence, server.lost_after) == ("flows@pbx.local", 0.8, 3.0, 60.0)
    assert read("freeswitch: {fs1: {user: null}}").freeswitch["fs1"].user is None


def test_how_long_a_call_may_last_and_how_often_its_phones_are_asked() -> None:
    settings = read("sip: {dialog_ping: 90s}\nlimits: {call_duration: 4h}")
    assert (settings.sip.dialog_ping, settings.limits.call_duration) == (90.0, 4 * 3600.0)
    assert read("sip: {dialog_ping: null}").sip.dialog_ping is None


def test_passwords_are_not_shown() -> None:
    assert "s3cret" not in repr(read("freeswitch: {fs1: {password: s3cret}}"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_the_factory_password_is_good_enough_for_this_machine(host: str) -> None:
    assert read(f"freeswitch: {{fs1: {{host: '{host}'}}}}").freeswitch["fs1"].host == host


@pytest.mark.parametrize("host", ["freeswitch", "10.0.0.9", "2001:db8::1"])
def test_the_factory_password_is_refused_for_other_machines(host: str) -> None:
    for password in ("", f", password: {FACTORY_PASSWORD}"):
        found = the_mistake(f"freeswitch:\n  fs1: {{host: '{host}'{password}}}\n")
        assert (found.line, found.column) == (2, 8)
        assert found.message.startswith("the factory password is refused")


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "message", "help"),
    [
        ("spi: {}", 1, 1, "E101", "unknown key 'spi'", "did you mean 'sip'?"),
        ("sip: {lisen: x}", 1, 7, "E101", "unknown key 'lisen'", "did you mean 'listen'?"),
        ("sip: {timers: {t3: 4s}}", 1, 16, "E101", "unknown key 't3'", "did you mean 't1'?"),
        ("freeswitch: {a: {pasword: x}}", 1, 18, "E101", "unknown key 'pasword'", "did you mean 'password'?"),
        ("gateways: {a: {uri: 'sip:a', url: x}}", 1, 30, "E101", "unknown key 'url'", "did you mean 'uri'?"),
        (
            "gateways: {a: {uri: 'sip:a', number: nmber}}",
            1,
            38,
            "E106",
            "unknown name 'nmber'",
            "did you mean 'number'?",
        ),
        (
            "gateways: {a: {uri: 'sip:a', prefix: 'a@b'}}",
            1,
            38,
            "E106",
            "'a@b' cannot stand in front of a number",
            "write digits, for example '00'",
        ),
        ("gateways: {a: {}}", 1, 15, "E115", "a key is missing here", "add uri:"),
        ("sip: [a]", 1, 6, "E103", "a map is expected here", ""),
        ("- sip", 1, 1, "E103", "a map is expected here", ""),
        ("freeswitch: fs1", 1, 13, "E103", "a map is expected here", ""),
        ("sip: {domains: {a: b}}", 1, 16, "E103", "a list is expected here", ""),
        ("sip: {domains: [{a: b}]}", 1, 17, "E106", "a single value is expected here", ""),
        ("sip: {listen: []}", 1, 15, "E106", "this must not be empty", ""),
        ("sip: {domains: ['sip:a.b']}", 1, 17, "E106", "'sip:a.b' is not a domain", None),
        ("sip: {trust: [10.0.0.0/33]}", 1, 15, "E106", "'10.0.0.0/33' is not an IP address or network", None),
        ("sip: {advertise: 'a b'}", 1, 18, "E106", "'a b' is not an address and a port", None),
        ("location: redis://x", 1, 11, "E106", "redis is not built yet", "use sqlite:///orchestrator.db or memory:"),
        ("location: sqlite:x.db", 1, 11, "E106", "'sqlite:x.db' is not a location store", None),
        ("location: 'sqlite:///'", 1, 11, "E106", "'sqlite:///' is not a location store", None),
        ("freeswitch: {a: {host: 'fs:8021'}}", 1, 24, "E106", "'fs:8021' is not a host name or an IP address", None),
        ("freeswitch: {a: {port: 99999}}", 1, 24, "E106", "'99999' is too large", "the most is 65535"),
        (
            "freeswitch: {a: {user: 'flows:x@y'}}",
            1,
            24,
            "E106",
            "'flows:x@y' is not a user of FreeSWITCH's directory",
            "write name@domain",
        ),
        ("freeswitch: {a: {silence: 0s}}", 1, 27, "E106", "a timer of 0 would fire at once", None),
        ("freeswitch: {a: {password: ''}}", 1, 28, "E106", "this must not be empty", ""),
        ("freeswitch: {a: {sip: '127.0.0.1'}}", 1, 23, "E106", "'127.0.0.1' is not a sip: URI", None),
        ("limits: {message: 65536}", 1, 19, "E106", "'65536' is too large", "the most is 65535"),
        ("limits: {transactions: 0}", 1, 24, "E106", "'0' is too small", "the least is 1"),
        ("limits: {transactions: many}", 1, 24, "E106", "'many' is not a whole number", ""),
        ("limits: {transactions: }", 1, 24, "E105", "a number is expected here", ""),
        ("log: {level: inf}", 1, 14, "E106", "'inf' is not known here", "did you mean 'info'?"),
        ("log: {format: yaml}", 1, 15, "E106", "'yaml' is not known here", "known: json, text"),
        ("log: {level: {env: [X]}}", 1, 20, "E105", "the name of an environment variable is expected here", ""),
        ("flows: [{a: b}]", 1, 9, "E105", "a path is expected here", ""),
    ],
)
def test_a_mistake_has_its_place_its_reason_and_its_cure(
    text: str, line: int, column: int, code: str, message: str, help: str | None
) -> None:
    found = the_mistake(text)
    assert (found.file, found.line, found.column, found.code, found.message) == ("o.yml", line, column, code, message)
    if help is None:
        assert found.help.startswith("write ")
    else:
        assert found.help == help


def test_all_mistakes_are_told_at_once_and_in_order() -> None:
    found = mistakes("log: {level: x}\nsip:\n  timers: {t1: 1}\n  foo: 1\nlocation: x\n")
    assert [one.line for one in found] == [1, 3, 4, 5]


@pytest.mark.parametrize("text", ["sip: {a", "sip: 1\nsip: 2", "a: !x 1", "a: *x", "\x01"])
def test_what_yaml_itself_refuses_is_told_with_its_place(text: str) -> None:
    assert all(one.code in ("E001", "E104") and one.line for one in mistakes(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.yml: No such file or directory"):
        load_settings(tmp_path / "none.yml", {})
    (tmp_path / "latin1.yml").write_bytes(b"sip: {domains: b\xfccher.example}")
    with pytest.raises(InputError, match="it is not UTF-8"):
        load_settings(tmp_path / "latin1.yml", {})


def test_settings_cannot_be_changed() -> None:
    settings: Any = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.location = "memory:"


def test_a_dialplan_finds_nobody_unless_told_where() -> None:
    assert read("").socket.listen is None
    assert read("socket: {listen: null}").socket.listen is None
    assert read("socket: {listen: '127.0.0.1:8084'}").socket.listen == Address("127.0.0.1", 8084)
    assert read("socket: {listen: '[::1]:8084'}").socket.listen == Address("::1", 8084)


@pytest.mark.parametrize("value", ["'127.0.0.1'", "'a b:1'", "8084", "'127.0.0.1:99999'"])
def test_a_socket_address_needs_host_and_port(value: str) -> None:
    assert the_mistake(f"socket: {{listen: {value}}}").line == 1


@pytest.mark.parametrize(
    "text",
    [
        "freeswitch: {fs1: {host: 10.0.0.9, password: [hush-hush]}}",
        "freeswitch: {fs1: {host: 10.0.0.9, password: {is: hush-hush}}}",
        "gateways: {a: {uri: 'sip:a', password: [hush-hush]}}",
        "gateways: {a: {uri: 'sip:a', password: {is: hush-hush}}}",
    ],
)
def test_a_secret_in_the_wrong_shape_is_not_repeated(text: str) -> None:
    with pytest.raises(InputError) as refused:
        read_settings("o.yml", text, {})
    assert "hush" not in "".join(f"{diagnostic}{diagnostic.help}" for diagnostic in refused.value.diagnostics)


@pytest.mark.parametrize(
    ("written", "path", "origins"),
    [
        ("{}", None, ()),
        ("{path: null}", None, ()),
        ("{path: /ws}", "/ws", ()),
        ("{path: /}", "/", ()),
        ("{origins: 'https://Phone.Example.com'}", None, ("https://phone.example.com",)),
        ("{origins: ['http://127.0.0.1:8000', 'http://[::1]:8000', '*', 'null', null]}", None, (
            "http://127.0.0.1:8000", "http://[::1]:8000", "*", "null", "null")),
    ],
)  # fmt: skip
def test_browsers(written: str, path: str | None, origins: tuple[str, ...]) -> None:
    found = read(f"sip: {{websocket: {written}}}").sip.websocket
    assert (found.path, found.origins) == (path, origins)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{path: ws}", "'ws' is not a path"),
        ("{path: '/ws?token=1'}", "'/ws?token=1' is not a path"),
        ("{origins: phone.example.com}", "'phone.example.com' is not an origin"),
        ("{origins: 'https://phone.example.com/'}", "'https://phone.example.com/' is not an origin"),
        ("{origins: 'https://*.example.com'}", "'https://*.example.com' is not an origin"),
    ],
)
def test_what_says_nothing_of_browsers(written: str, message: str) -> None:
    assert the_mistake(f"sip: {{websocket: {written}}}").message == message


# --- certificates -----------------------------------------------------------------------------------------------------


def test_a_transport_that_enciphers_needs_a_certificate() -> None:
    found = the_mistake("sip:\n  listen: [udp:127.0.0.1:0, tls:127.0.0.1:0]\n")
    assert (found.line, found.column, found.message) == (2, 29, "tls needs a certificate")
    assert found.help == "add tls: {certificate: certificate.pem, key: key.pem} to sip:"


@pytest.mark.parametrize("key", ["certificate", "key", "ca"])
def test_a_file_of_tls_that_is_not_there(key: str, tmp_path: Path) -> None:
    found = the_mistake(f"sip:\n  tls:\n    {key}: {tmp_path}/none.pem\n")
    assert (found.line, found.code) == (3, "E003")
    assert found.message == f"cannot read {tmp_path}/none.pem: No such file or directory"
