"""At a stop of a real server every call of a flow gets its last steps and its record, whatever it is doing."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from echo_core import wait_until
from test_app import CONFIG, Caller, Running, received, respond
from test_esl_server import Dialplan

FLOWS = """\
flowlang: 1
flows:
  parks:
    on: invite
    when: call.target.user == 'late'
    do: [sleep: 1h]
    on_end: [log: 'end parks ${call.end_reason ?? ""}']
  relays:
    on: invite
    do: [relay: registered]
    on_end: [log: 'end relays ${call.end_reason ?? ""}']
  dialplan:
    on: {socket: '*'}
    do: [{wait: dtmf, for: 1h}]
    on_end: [log: 'end dialplan ${call.end_reason ?? ""}']
"""


class Busy(Running):
    """A server that also listens for FreeSWITCH's dialplan, with a call in each state."""

    def wait_ready(self) -> Busy:
        wait_until(lambda: self.line("\nready "), 90)
        line = next(line for line in self.output.splitlines() if line.startswith("ready "))
        ports = {name: int(rest.rpartition(":")[2]) for name, _, rest in (w.partition(":") for w in line.split()[1:])}
        self.sip, self.admin, self.dialplan = (("127.0.0.1", ports[name]) for name in ("udp", "http", "socket"))
        return self

    def load(self) -> None:
        """One call is answered, one rings, one is parked by its flow, one comes from the dialplan."""
        caller = Caller(self)
        phone: Any = Caller(self).sock
        port = phone.getsockname()[1]
        caller.send("REGISTER", "sip:bob@example.com", "reg", "Expires: 600", f"Contact: <sip:bob@127.0.0.1:{port}>")
        assert caller.answer().startswith("SIP/2.0 200 ")
        for call, status in (("up", "200 OK"), ("rings", "180 Ringing")):
            caller.send("INVITE", "sip:bob@example.com", call)
            phone.sendto(respond(wait_until(lambda: received(phone), 30), status), self.sip)
            wait_until(lambda status=status: status.encode() in received(caller.sock), 30)
        caller.send("INVITE", "sip:late@example.com", "parked")
        site: Any = SimpleNamespace(listener=SimpleNamespace(address=self.dialplan), peers=self.sockets)
        self.channel = Dialplan(site)
        wait_until(lambda: "orchestrator_flow_runs 4.0" in self.get("/metrics")[1], 30)


@pytest.mark.parametrize("hurry", [False, True])
def test_every_call_gets_its_last_steps_and_its_record(tmp_path: Path, hurry: bool) -> None:
    config = CONFIG + "cdr: cdr.jsonl\nsocket: {listen: '127.0.0.1:0'}\n"
    config += "" if hurry else "stop: {setup: 100ms, ringing: 200ms}\n"
    with Busy(tmp_path, flows=FLOWS, config=config) as server:
        server.ready()
        server.load()
        server.send(signal.SIGTERM)
        if hurry:
            wait_until(lambda: server.line("draining"), 30)
            gevent.sleep(0.2)
            server.send(signal.SIGTERM)
        ended, output = server.ended(), server.output
    if hurry and ended == -signal.SIGALRM:
        pytest.skip("the machine is too busy: the kernel ended the server")
    assert ended == 0 and "Traceback" not in output
    records = [json.loads(line) for line in (tmp_path / "cdr.jsonl").read_text().splitlines()]
    seen = sorted((record["flow"], record["sip_call_id"].partition("@")[0], record["code"]) for record in records)
    assert [flow for flow, _, _ in seen] == ["dialplan", "parks", "relays", "relays"]
    assert seen[1:] == [("parks", "parked", 503), ("relays", "rings", 503), ("relays", "up", 200)]
    assert {record["reason"] for record in records} == {"server stops"}
    assert {record["ended_by"] for record in records} == {"engine"}
    for flow, times in (("dialplan", 1), ("parks", 1), ("relays", 2)):
        assert output.count(f"end {flow} server stops") == times
