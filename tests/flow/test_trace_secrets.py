"""Push tokens do not stand in traces, whichever way they are written."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from orchestrator.flow.loader import load_program
from orchestrator.flow.run.trace import ReadLine, Trace, facts
from orchestrator.flow.tools.explain import Explainer, waiting
from orchestrator.history import Note
from orchestrator.testing.world import World


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sip:b@h;pn-provider=apns;pn-prid=S3CRET;x=1", "sip:b@h;pn-provider=apns;pn-prid=***;x=1"),
        ("<sip:b@h;PN-PRID=S3CRET>", "<sip:b@h;PN-PRID=***>"),
        ("sip:b@h;pn-param=S3CRET", "sip:b@h;pn-param=***"),
        ("http://h/?c=sip%3Ab%3Bpn-prid%3DS3CRET%3Bx%3D1&d=2", "http://h/?c=sip%3Ab%3Bpn-prid%3D***%3Bx%3D1&d=2"),
        ("http://h/?c=b%3bpn-purr%3dS3CRET", "http://h/?c=b%3bpn-purr%3d***"),
        ("http://h/?c=b%3bpn-prid%3dT1%3Aremote%26T2%3Avoip%3b&d=2", "http://h/?c=b%3bpn-prid%3d***%3b&d=2"),
        ("sip:b@h;pn-prid=T1:remote&T2:voip;x=1", "sip:b@h;pn-prid=***;x=1"),
        ("sip:b@h;pn-type=google;pn-tok=S3CRET", "sip:b@h;pn-type=google;pn-tok=***"),
        ("sip:b@h;pn-p256dh=BK;pn-auth=S3CRET", "sip:b@h;pn-p256dh=BK;pn-auth=***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_tokens_are_masked(text: str, shown: str) -> None:
    record = ReadLine(0.0, None, Note(text), (("event.contact.uri", text), ("event.contact.pn_prid", "S3CRET")))
    assert record.text == shown
    assert record.what_was_read() == {"event.contact.uri": shown, "event.contact.pn_prid": "***"}


URI = "sip:b@h;pn-prid=S3CRET;x=1"
SHOWN = "sip:b@h;pn-prid=***;x=1"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([URI, "a"], [SHOWN, "a"]),
        ((URI,), [SHOWN]),
        ({"uri": URI, "pn_prid": "S3CRET", "pn_param": None}, {"uri": SHOWN, "pn_prid": "***", "pn_param": None}),
        ([{"deep": [{"pn_purr": "S3CRET", "PN-PRID": "S3CRET"}]}], [{"deep": [{"pn_purr": "***", "PN-PRID": "***"}]}]),
        (MappingProxyType({"pn_prid": "S3CRET"}), {"pn_prid": "***"}),
        ({"Authorization": "S3CRET", "To": "a"}, {"Authorization": "***", "To": "a"}),
        (7, 7),
    ],
)
def test_tokens_within_structures_are_masked(value: object, shown: object) -> None:
    line = ReadLine(0.0, None, Note("said"), (("event.data", value),))
    assert line.what_was_read() == {"event.data": shown}


FLOW = """flowlang: 1
flows:
  main:
    on: invite
    do:
      - subscribe: registered
        id: late
        where: event.uri == 'sip:x' and event.aor == call.target.aor
        do: [log: found]
      - subscribe: registered
        id: exact
        where: {aor: '${call.target.aor}', uri: 'sip:b@h;pn-prid=S3CRET'}
        do: [log: found]
      - relay: {to: registered, ring: 20s, keep_open: 20s}
"""


def test_verdicts_and_what_is_waited_for_name_no_token(tmp_path: Path) -> None:
    path = tmp_path / "a.flow.yaml"
    path.write_text(FLOW)
    flows, _ = load_program([path])
    world = World(flows)
    explainer = Explainer(world.engine.flows)
    told: list[dict[str, Any]] = []
    explainer.open("main", told.append)
    world.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    world.run(1)
    world.phone("bob@example.com", "10.0.0.3", parameters=";pn-provider=apns;pn-prid=S3CRET").register()
    world.run(1)
    assert len(told) == 2 and not any(verdict["fits"] for verdict in told)
    said = json.dumps([told, waiting(world.engine.flows, "", world.now)])
    assert "pn-prid=***" in said and "S3CRET" not in said
    (run,) = world.engine.flows.runs.values()
    assert "S3CRET" not in json.dumps([list(facts(Trace.of(run)))])
