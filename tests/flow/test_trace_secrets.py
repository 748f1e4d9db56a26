"""Push tokens do not stand in traces, whichever way they are written."""

from __future__ import annotations

import pytest

from orchestrator.flow.run.trace import TraceLine


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sip:b@h;pn-provider=apns;pn-prid=S3CRET;x=1", "sip:b@h;pn-provider=apns;pn-prid=***;x=1"),
        ("<sip:b@h;PN-PRID=S3CRET>", "<sip:b@h;PN-PRID=***>"),
        ("sip:b@h;pn-param=S3CRET", "sip:b@h;pn-param=***"),
        ("http://h/?c=sip%3Ab%3Bpn-prid%3DS3CRET%3Bx%3D1&d=2", "http://h/?c=sip%3Ab%3Bpn-prid%3D***%3Bx%3D1&d=2"),
        ("http://h/?c=b%3bpn-purr%3dS3CRET", "http://h/?c=b%3bpn-purr%3d***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_tokens_are_masked(text: str, shown: str) -> None:
    record = TraceLine(0.0, None, "{}", (text,), (("event.contact.uri", text), ("event.contact.pn_prid", "S3CRET")))
    assert record.text == shown
    assert record.what_was_read() == {"event.contact.uri": shown, "event.contact.pn_prid": "***"}
