"""Addresses as they are written: what is refused, and what to write instead. Held against the parser of SIP."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flowcheck import diagnose, steps

from orchestrator.errors import MalformedMessage
from orchestrator.flow.language.written import (
    Flaw,
    aor_flaw,
    gateway_uri_flaw,
    host_flaw,
    party_flaw,
    port_flaw,
    server_uri_flaw,
    sip_uri_flaw,
    web_flaw,
)
from orchestrator.sip.uri import parse_uri


@pytest.mark.parametrize(
    ("judge", "good"),
    [
        (host_flaw, ["fs1", "fs_1", "gw.example.net", "10.0.0.1", "::1", "2001:db8::1", "x--1.example", "h."]),
        (port_flaw, ["1", "5060", "65535"]),
        (sip_uri_flaw, ["sip:gw", "SIP:gw", "sips:a@b", "sip:[::1]:5060", "sip:a%20b@h;x=y?h=v", "sip:10.0.0.1:5080"]),
        (gateway_uri_flaw, ["sip:gw.example.net", "sip:gw:5061;transport=udp", "sip:[2001:db8::1]"]),
        (party_flaw, ["alice@example.com", "sip:+4930@h:5060", "Alice <sip:alice@h>", '"A, B" <a@h>', "a@h;x=y"]),
        (aor_flaw, ["bob@example.com", "+4930@10.0.0.1", "*8@h"]),
        (web_flaw, ["https://x", "HTTP://x:80/a?b=c", "https://${secrets.H}/x", "${const.url}", "http://[::1]:1/"]),
    ],
)
def test_good_addresses(judge: Callable[[str], Flaw | None], good: list[str]) -> None:
    assert [text for text in good if judge(text) is not None] == []


@pytest.mark.parametrize(
    ("judge", "text", "help"),
    [
        (host_flaw, "fs1:8021", "write fs1; the port 8021 has a key of its own"),
        (host_flaw, "sip:fs1", "write fs1"),
        (host_flaw, "tcp://fs1:8021/", "write fs1; the port 8021 has a key of its own"),
        (host_flaw, "[::1]", "write ::1"),
        (host_flaw, "fs 1", "write 127.0.0.1, ::1 or freeswitch"),
        (host_flaw, "10.0.0.300", "an IPv4 address has four numbers from 0 to 255"),
        (host_flaw, "10.0.1", "an IPv4 address has four numbers from 0 to 255"),
        (host_flaw, "", "write 127.0.0.1, ::1 or freeswitch"),
        (port_flaw, "0", "a port is a number from 1 to 65535"),
        (port_flaw, "70000", "a port is a number from 1 to 65535"),
        (sip_uri_flaw, "gw.example.net", "write sip:gw.example.net"),
        (sip_uri_flaw, "10.0.0.1:5070", "write sip:10.0.0.1:5070"),
        (sip_uri_flaw, "10.0.0.1", "write sip:10.0.0.1"),
        (sip_uri_flaw, "sip://gw.example.net/", "write sip:gw.example.net"),
        (sip_uri_flaw, "<sip:gw>", "write sip:gw"),
        (sip_uri_flaw, "udp:gw:5060", "write sip:gw:5060"),
        (sip_uri_flaw, "sip: gw", "write sip:gw"),
        (sip_uri_flaw, "sip:2001:db8::1", "write sip:[2001:db8::1]"),
        (sip_uri_flaw, "sip:gw:99999", "a port is a number from 1 to 65535"),
        (sip_uri_flaw, "sip:gw:sip", "a port is a number from 1 to 65535"),
        (sip_uri_flaw, "sip:bob@10.0.0.300", "an IPv4 address has four numbers from 0 to 255"),
        (sip_uri_flaw, "sip:@gw", "write sip:gw"),
        (sip_uri_flaw, "sip:bob@", "write sip:127.0.0.1:5080"),
        (sip_uri_flaw, "+49301234", "write sip:127.0.0.1:5080"),
        (server_uri_flaw, "sip:gw;transport=tls", "add tls:0.0.0.0:5061 to listen:"),
        (server_uri_flaw, "sip:gw;transport=TCP;lr", "add tcp:0.0.0.0:5060 to listen:, or write sip:gw;lr"),
        (server_uri_flaw, "sips:gw", "add tls:0.0.0.0:5061 to listen:"),
        (gateway_uri_flaw, "sip:acme@gw;x=y", "write sip:gw;x=y; to log in there add user: and password:"),
        (party_flaw, "alice", "write alice@example.com"),
        (party_flaw, "+49 30 1234", "write +49301234@example.com"),
        (party_flaw, "tel:+4930", "write +4930@example.com"),
        (party_flaw, "alice@", "write alice@example.com"),
        (party_flaw, "@example.com", "write alice@example.com"),
        (party_flaw, "sip:example.com", "write sip:alice@example.com"),
        (party_flaw, "Alice <sip:alice@h", "write 'Alice <sip:alice@example.com>' or alice@example.com"),
        (party_flaw, "a@h:99999", "a port is a number from 1 to 65535"),
        (aor_flaw, "bob", "write bob@example.com"),
        (aor_flaw, "sip:bob@h:5060;x=y", "write bob@h"),
        (aor_flaw, "<sip:bob@h>", "write bob@h"),
        (aor_flaw, "bob@", "write bob@example.com"),
        (web_flaw, "push.example.com/x", "write https://push.example.com/x"),
        (web_flaw, "localhost:8080/x", "write https://localhost:8080/x"),
        (web_flaw, "//x/y", "write https://x/y"),
        (web_flaw, "http:/x", "write http://x"),
        (web_flaw, "https//x", "write https://x"),
        (web_flaw, "/who", "write https://example.com/who, or  endpoint:  beside it"),
        (web_flaw, "ftp://x", "write https://example.com/path"),
        (web_flaw, "http://x:99999/", "a port is a number from 1 to 65535"),
        (web_flaw, "https://x/a b", "write %20 for a blank"),
        (web_flaw, "x.example/${call.id}", "write https://x.example/${call.id}"),
    ],
)
def test_bad_addresses_and_the_cure(judge: Callable[[str], Flaw | None], text: str, help: str) -> None:
    flaw = judge(text)
    assert flaw is not None and flaw.help == help
    if help.startswith("write ") and "; " not in help and "," not in help and "%20" not in help and "'" not in help:
        assert judge(help.removeprefix("write ")) is None, "the cure is as ill as what it cures"


@pytest.mark.parametrize(
    "text",
    ["sip:a@b", "sip:a:p@b", "sip:[::1]", "sip:a@b;x", "sip:a@b;x=%20", "sip:a@b?x=y", "sip:a b@c", "sip:", "sip:@b",
     "sip:a@b:0", "sip:a@b:65536", "sip:a@b;", "sip:a@b@c", "sip:#31#@b", "sip:a@b/", "sip:-b", "sip:a%2@b"],
)  # fmt: skip
def test_what_is_taken_can_be_read_by_the_sip_parser(text: str) -> None:
    try:
        parse_uri(text.encode())
        readable = True
    except MalformedMessage:
        readable = False
    assert readable or sip_uri_flaw(text) is not None


@pytest.mark.parametrize(
    ("step", "messages"),
    [
        ("- relay: 'sip:bob@10.0.0.300'", 1),
        ("- relay: ['sip:bob@h', 'sip:bob@h:99999']", 1),
        ("- relay: 'SIP:bob@h'", 0),
        ("- relay: 'sip:${call.from.user}@h:99999'", 1),
        ("- relay: 'sip:${call.from.user}@${call.domain}:5070'", 0),
        ("- relay: {to: registered, from: alice}", 1),
        ("- relay: {to: registered, from: '${call.from.user}@10.0.0.300'}", 1),
        ("- relay: {to: registered, from: '${call.from.aor}'}", 0),
        ("- relay: {to: registered, from: '${call.from.user}${call.from.aor}'}", 0),
        ("- relay: {aor: 'sip:bob@h'}", 1),
        ("- relay: {aor: '${call.target.user}@example.com'}", 0),
        ("- inject: 'sip:'", 1),
        ("- transfer: 'sip:bob@'", 1),
        ("- originate: 'sip:a b@c'", 1),
        ("- originate: {to: '+49 30 1234', gateway: gw}", 1),
        ("- originate: {to: '+49301234', gateway: gw}", 0),
        ("- http: push.example.com/x", 1),
        ("- http: {endpoint: push, url: /who}", 0),
        ("- http: {endpoint: push, url: 'https://x/who'}", 1),
    ],
)
def test_steps_with_written_addresses(step: str, messages: int) -> None:
    more = "gateways: {gw: {uri: 'sip:gw'}}\nendpoints: {push: {url: 'https://push.example.com'}}"
    found = [d for d in diagnose(steps(step, "start" if "originate" in step else "invite", more)) if d.code == "E106"]
    assert len(found) == messages
    assert all(d.line == 6 and d.column > 9 and d.help for d in found)


@pytest.mark.parametrize(
    "section",
    [
        "gateways: {a: {uri: gw.example.net}}",
        "gateways: {a: {uri: 'sip:bob@gw'}}",
        "gateways: {a: {uri: 'sip:gw;transport=tcp'}}",
        "freeswitch: {a: {host: 'fs1:8021', password: x}}",
        "freeswitch: {a: {host: fs1, port: 70000, password: x}}",
        "freeswitch: {a: {host: fs1, port: 0, password: x}}",
        "freeswitch: {a: {host: fs1, sip: 'fs1:5080', password: x}}",
        "users: {a: {http: users.example.com}}",
        "endpoints: {a: {url: push.example.com}}",
        "endpoints: {a: {url: 'https:/push.example.com'}}",
    ],
)
def test_resources_with_written_addresses(section: str) -> None:
    found = diagnose(f"flowlang: 1\n{section}\n")
    assert [(d.code, d.line) for d in found] == [("E106", 2)] and found[0].help
