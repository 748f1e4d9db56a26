"""Name servers and servers of a domain on real sockets: the primary gateway is dead, a connection is refused, the name
server says nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.testing.name_server import NameServer, replies_of
from orchestrator.testing.phone import PhoneCall
from orchestrator.testing.sockets import SocketPhone, wait_until

SOA = "test. 60 IN SOA ns.test. root.test. 1 60 60 60 1"
KINDS = ("silent", "refused", "mute")
FLOW = """\
  {kind}:
    on: invite
    when: call.target.user == '{kind}'
    do:
      - relay: {{gateways: {kind}, ring: 20s}}
        on: {{answered: [], else: [reply: 480]}}
"""


class Place:
    """A server, the name server it asks, a port that swallows everything, and the phones."""

    def __init__(self, serve: Callable[..., Any], folder: Path) -> None:
        self.names = NameServer(lambda query: None)
        self.hole = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.hole.bind(("127.0.0.1", 0))
        self.phones: list[SocketPhone] = []
        flows = folder / "x.flow.yaml"
        flows.write_text("flowlang: 1\nflows:\n" + "".join(FLOW.format(kind=kind) for kind in KINDS))
        self.server = serve(
            flows=[str(flows)],
            gateways={kind: {"uri": f"sip:{kind}.test", "probe": "0s"} for kind in KINDS},
            listen=["tcp"],
            sip={
                "dns": {"servers": [f"127.0.0.1:{self.names.address[1]}"], "timeout": "2s"},
                "failover": {"after": "300ms"},
            },
        )

    def phone(self, aor: str) -> SocketPhone:
        self.phones.append(SocketPhone(aor, self.server.sip))
        return self.phones[-1]

    def close(self) -> None:
        for phone in self.phones:
            phone.close()
        self.names.close()
        self.hole.close()


@pytest.fixture(scope="module")
def place(serve_all: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(serve_all, tmp_path_factory.mktemp("flows"))
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["silent", "refused"])
def test_a_call_is_answered_by_the_second_server_when_the_first_is_dead(place: Place, kind: str) -> None:
    second = place.phone("carrier@example.com")
    second.on_invite = PhoneCall.answer
    first = ("D2U", "_udp", place.hole.getsockname()[1]) if kind == "silent" else ("D2T", "_tcp", 1)
    zone = [
        f'{kind}.test. 60 IN NAPTR 1 0 "s" "SIP+{first[0]}" "" _sip.{first[1]}.one.test.',
        f'{kind}.test. 60 IN NAPTR 2 0 "s" "SIP+D2U" "" _sip._udp.two.test.',
        f"_sip.{first[1]}.one.test. 60 IN SRV 1 0 {first[2]} a.test.",
        f"_sip._udp.two.test. 60 IN SRV 1 0 {second.address[1]} a.test.",
        "a.test. 60 IN A 127.0.0.1",
    ]
    place.names.reply = replies_of("\n".join(zone), SOA)
    call = place.phone("alice@example.com").invite(f"{kind}@example.com")
    assert wait_until(lambda: call.state == "answered"), (call.statuses, place.server.log)
    assert [status for status in call.statuses if status >= 200] == [200]
    call.hangup()
    assert wait_until(lambda: bool(second.calls) and second.calls[0].state == "ended")


def test_a_name_server_that_says_nothing_costs_its_time_and_the_caller_is_told(place: Place) -> None:
    place.names.reply = lambda query: None
    call = place.phone("alice@example.com").invite("mute@example.com")
    assert wait_until(lambda: call.state == "ended")
    assert call.statuses == [100, 480] and place.names.asked
