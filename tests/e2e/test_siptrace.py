"""`orchestrator siptrace` against a running server while phones register and call."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until

RELAY = "flowlang: 1\nflows:\n  all:\n    on: invite\n    do: [relay: registered]\n"


def hear_ctrl_c() -> None:
    """A shell lets its background jobs ignore SIGINT, and the tests may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_aor_a_number_and_an_address_are_seen_whole_and_masked(serve: Any, tmp_path: Any) -> None:
    flow = tmp_path / "relay.flow.yaml"
    flow.write_text(RELAY)
    server = serve(flows=[str(flow)])
    alice = SocketPhone("alice@example.com", server.sip, parameters=";pn-provider=apns;pn-prid=T0KEN")
    bob, carol = (SocketPhone(f"{name}@example.com", server.sip) for name in ("bob", "carol"))
    bob.on_invite = PhoneCall.answer
    admin = "{}:{}".format(*server.admin)
    targets = ("alice@example.com", "bob", f"127.0.0.1:{carol.wire.address[1]}")
    outputs = [tmp_path / f"trace{number}" for number in range(3)]
    traces = []
    for target, output in zip(targets, outputs, strict=True):
        command = [sys.executable, "-m", "orchestrator", "siptrace", target, "--for", "5m", "--json", "--admin", admin]
        with output.open("w") as stream:
            traces.append(subprocess.Popen(command, stdout=stream, stderr=subprocess.DEVNULL, preexec_fn=hear_ctrl_c))

    def watched() -> bool:
        for phone in (alice, bob, carol):
            phone.register()
        wait_until(lambda: False, 0.3)
        return all("REGISTER" in output.read_text() for output in outputs)

    try:
        assert wait_until(watched, 60), "each trace is on"
        call = alice.invite("bob@example.com")
        assert wait_until(lambda: call.state == "answered", 30)
        call.hangup()
        assert wait_until(lambda: all("BYE" in output.read_text() for output in outputs[:2]), 30)
    finally:
        for trace in traces:
            trace.send_signal(signal.SIGINT)
        for trace in traces:
            trace.wait(30)
        for phone in (alice, bob, carol):
            phone.close()
    seen = [[json.loads(line) for line in output.read_text().splitlines()] for output in outputs]
    for messages in seen[:2]:
        invite = next(one["message"] for one in messages if one["message"].startswith("INVITE "))
        assert "\r\n\r\nv=0" in invite, "whole, with its body"
        assert "carol" not in "".join(one["message"] for one in messages)
    assert all(one["peer"] == targets[2] for one in seen[2])
    everything = "".join(output.read_text() for output in outputs)
    assert "T0KEN" not in everything and "pn-prid=***" in everything
