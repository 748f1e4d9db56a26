"""`transport=` and `sips:` in URIs that somebody writes: refused where nothing of that kind is listened on, in the
configuration and in flows, with the place."""

from __future__ import annotations

import pytest

from orchestrator.errors import Diagnostic, InputError
from orchestrator.flow.language.program import Resources
from orchestrator.flow.loader import Source, load_sources
from orchestrator.resources import known_resources
from orchestrator.settings.reader import read_settings

LISTEN = "sip: {{listen: ['udp:0.0.0.0:5060'{more}]}}\n"


def listen(*more: str) -> str:
    return LISTEN.format(more="".join(f", '{one}'" for one in more))


FLOW = "flowlang: 1\nflows:\n  a:\n    on: invite\n    do:\n      - {step}\n"
TCP, ZTCP = "tcp:0.0.0.0:5060", "ws:0.0.0.0:8080"


@pytest.mark.parametrize(
    ("written", "place", "help"),
    [
        ("gateways: {a: {uri: 'sip:gw;transport=tcp'}}", (2, 21), "add tcp:0.0.0.0:5060 to listen:, or write sip:gw"),
        ("gateways: {a: {uri: 'sips:gw'}}", (2, 21), "add tls:0.0.0.0:5061 to listen:"),
        ("gateways: {a: {uri: 'sip:gw;transport=tls'}}", (2, 21), "add tls:0.0.0.0:5061 to listen:"),
        (
            "freeswitch: {a: {host: '::1', sip: 'sip:fs1:5080;transport=TCP'}}",
            (2, 36),
            "add tcp:0.0.0.0:5060 to listen:, or write sip:fs1:5080",
        ),
        ("gateways: {a: {uri: 'sip:gw;transport=tpc'}}", (2, 21), "did you mean 'tcp'?"),
        ("gateways: {a: {uri: 'sips:gw;transport=tsl'}}", (2, 21), "did you mean 'tls'?"),
        ("gateways: {a: {uri: 'sip:gw;transport=foo'}}", (2, 21), "write sip:gw"),
        ("gateways: {a: {uri: 'sip:gw;transport=ws'}}", (2, 21), "write sip:gw"),
    ],
)
def test_the_configuration_names_no_transport_that_it_does_not_listen_on(
    written: str, place: tuple[int, int], help: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_settings("o.yml", listen(ZTCP) + written, {})
    (found,) = caught.value.diagnostics
    assert ((found.line, found.column), found.code, found.help) == (place, "E106", help)


def test_what_is_listened_on_may_be_named() -> None:
    settings = read_settings("o.yml", listen(TCP) + "gateways: {a: {uri: 'sip:gw;transport=tcp'}}", {})
    assert known_resources(settings).transports == ("udp", "tcp")


def complained(source: Source, known: Resources | None) -> list[Diagnostic]:
    try:
        return load_sources([source], known)[1]
    except InputError as error:
        return list(error.diagnostics)


@pytest.mark.parametrize(
    "step",
    [
        "relay: 'sip:bob@h;transport=tcp'",
        "relay: ['sip:a@h', 'sip:bob@h;transport=TCP']",
        "relay: 'sip:${call.to.user}@h;transport=tcp'",
    ],
)
def test_flows_name_what_the_configuration_listens_on(step: str) -> None:
    source = Source("x.flow.yaml", FLOW.format(step=step))
    for more, complaints in (((), ["E106"]), ((TCP,), [])):
        known = known_resources(read_settings("o.yml", listen(*more), {}))
        found = complained(source, known)
        assert [each.code for each in found] == complaints and all(each.line == 6 for each in found)


def test_the_gateways_of_a_flow_too() -> None:
    source = Source("x.flow.yaml", "flowlang: 1\ngateways: {a: {uri: 'sip:gw;transport=tcp'}}\n")
    assert [each.code for each in complained(source, None)] == ["E106"]
    assert complained(source, known_resources(read_settings("o.yml", listen(TCP), {}))) == []
