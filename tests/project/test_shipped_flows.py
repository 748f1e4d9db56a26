"""The shipped flows as they are, with nothing replaced: `orchestrator run`, a real FreeSWITCH, sound in real RTP.

Digits are RFC 4733, tones and speech are A-law, a fax goes from FreeSWITCH to FreeSWITCH through us. What a flow has
found out it says in the Reason of its BYE.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from media_server import PASSWORD, MediaServer, free_port, media_server, needs_freeswitch, orchestrator
from test_media_flows import Sounding, rtp_port
from test_screening import value

pytestmark = needs_freeswitch

FLOWS = Path(__file__).parents[2] / "flows"
ASK = """
flowlang: 1
flows:
  a_message_is_due:
    on: invite
    when: call.target.user.startsWith('77')
    do:
      - raise: message_due
        data: {to: '${call.target.user.drop(2)}@example.com', from: '${call.from.aor}'}
      - reply: 480
  a_fax_is_due:
    on: invite
    when: call.target.user == 'fax-now'
    do:
      - raise: fax_due
        data: {to: fax@example.com, from: '${call.from.aor}', file: 'FAX'}
      - reply: 480
"""
BEEP, CED, CNG = 1000, 2100, 1100
"""Hz: a mailbox, a called fax, a calling fax."""


class Party(Sounding):
    """A phone with something to say."""

    def takes_call(self, meanwhile: Callable[[], None] | None = None) -> int:
        """Answer what rings; the port FreeSWITCH wants to hear us on."""
        invite = self.expect("INVITE ", meanwhile)
        self.answer(invite, "180 Ringing")
        self.answer(invite, "200 OK", self.sdp())
        self.expect("ACK ")
        return rtp_port(invite)

    def talks(self, seconds: float, far_port: int) -> None:
        """Noise: loud, and of no frequency."""
        noise = random.Random(7)  # the same words each time
        for _ in range(int(seconds * 50)):
            self.frame(8, self.stamp, noise.randbytes(160), far_port)


class Site:
    """An orchestrator with all shipped flows, and phones at it."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder
        self.phones: list[Party] = []

    def phone(self, name: str, contact: str = "") -> Party:
        phone = Party(name, self.port)
        phone.contact = contact or phone.contact
        self.phones.append(phone)
        phone.register()
        return phone

    def rings(self, number: str) -> tuple[Party, Party, int]:
        """Alice dials, and bob takes the call that comes to him; both, and the port where FreeSWITCH hears bob."""
        alice, bob = self.phone("alice"), self.phone("bob")
        alice.request("INVITE", f"sip:{number}@example.com", f"<sip:{number}@example.com>", 1, [], alice.sdp())
        return alice, bob, bob.takes_call()

    def talk(self, number: str) -> tuple[Party, Party, int]:
        """The same where it is alice whom bob talks to."""
        alice, bob, port = self.rings(number)
        alice.answered()
        return alice, bob, port

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()


@pytest.fixture
def site(server: MediaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("ESL_PASSWORD", PASSWORD)
    with orchestrator(server, tmp_path, ASK.replace("FAX", fax_of(tmp_path)), FLOWS) as port:  # ASK is read first
        site = Site(port, tmp_path)
        yield site
        for phone in site.phones:
            phone.close()


def example(page: str, number: int) -> str:
    """The YAML block with this number of a page in docs/flows."""
    return (FLOWS.parent / "docs" / "flows" / page).read_text().split("```yaml\n")[number].split("```")[0]


# --- dtmf_screening ---------------------------------------------------------------------------------------------------


def test_whoever_answers_hears_a_prompt_and_presses_two(site: Site) -> None:
    alice, bob, port = site.talk("88bob")
    bob.is_silent(0.3, port)
    assert bob.hears_sound()
    bob.type([2], port)
    assert alice.hears_nothing() and bob.hears_nothing()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (lambda bob, port: bob.type([5], port), "callee pressed 5"),
        (lambda bob, port: bob.sound(BEEP, 1.2, port), "answering machine"),
        (lambda bob, port: bob.sound(CED, 2.5, port), "fax machine"),
    ],
    ids=["another key", "an answering machine", "a fax"],
)
def test_all_others_are_hung_up(site: Site, does: Callable[[Party, int], None], said: str) -> None:
    alice, bob, port = site.talk("88bob")
    bob.is_silent(0.3, port)
    assert (bob.farewell(lambda: does(bob, port)), alice.farewell()) == (said, said)


# --- pickup -----------------------------------------------------------------------------------------------------------


def test_a_ringing_call_is_taken_inside_freeswitch(server: MediaServer, tmp_path: Path) -> None:
    """The flow of docs/flows/pickup_by_intercept.md: charlie talks to alice, and bob's phone is told why it stops."""
    with orchestrator(server, tmp_path, example("pickup_by_intercept.md", 1)) as port:
        site = Site(port, tmp_path)
        alice, bob, charlie = site.phone("alice"), site.phone("102"), site.phone("103")
        alice.request("INVITE", "sip:102@example.com", "<sip:102@example.com>", 1, [], alice.sdp())
        ringing = bob.expect("INVITE ")
        bob.answer(ringing, "180 Ringing")
        alice.expect("SIP/2.0 180")
        far_port = rtp_port(charlie.call("*7"))
        alice_port = rtp_port(alice.answered())
        cancel = bob.expect("CANCEL ")
        assert "Call completed elsewhere" in value(cancel, "Reason")
        bob.answer(cancel, "200 OK")
        bob.answer(ringing, "487 Request Terminated")
        alice.is_silent(0.2, alice_port)
        alice.forgets()
        assert alice.hears_sound(lambda: charlie.talks(0.4, far_port)), "charlie"
        for phone in site.phones:
            phone.close()


# --- a call of FreeSWITCH's dialplan ----------------------------------------------------------------------------------

HANDED = """
flowlang: 1
flows:
  handed_over:
    on: {socket: '*'}
    do:
      - play: {file: 'tone_stream://%(200,0,440)', leg: callee}
      - collect: {max: 2, timeout: 20s, leg: callee}
        as: keys
      - log: 'pressed ${keys}, ${call.fs.vars["direction"] ?? "?"}'
      - hangup: done
"""


def test_a_channel_that_a_dialplan_hands_over(server: MediaServer, tmp_path: Path) -> None:
    listening = free_port(socket.SOCK_STREAM)
    with orchestrator(server, tmp_path, HANDED, more=f"socket: {{listen: '127.0.0.1:{listening}'}}\n") as port:
        site = Site(port, tmp_path)
        bob = Party("bob", server.sip_port)
        console = server.console()
        dialplan = f"'socket:127.0.0.1:{listening} async full' inline"
        console.api(f"bgapi originate sofia/orchestrator/bob@127.0.0.1:{bob.port} {dialplan}")
        far_port = bob.takes_call()
        bob.is_silent(0.2, far_port)
        assert bob.hears_sound(), "the flow has begun"
        bob.is_silent(0.5, far_port)
        bob.type([4, 7], far_port)
        bob.farewell()
        console.close()
        bob.close()
        assert "pressed 47, outbound" in site.log


# --- voicemail_detect -------------------------------------------------------------------------------------------------


def person(bob: Party, port: int) -> None:
    bob.is_silent(0.4, port)
    bob.talks(0.8, port)
    bob.is_silent(1.5, port)
    bob.type([1], port)


def machine(bob: Party, port: int) -> None:
    bob.is_silent(0.4, port)
    bob.talks(5.0, port)
    bob.sound(BEEP, 0.8, port)


def beep(bob: Party, port: int) -> None:
    bob.sound(BEEP, 0.8, port)


def fax(bob: Party, port: int) -> None:
    bob.is_silent(0.4, port)
    bob.sound(CED, 2.5, port)


@pytest.mark.parametrize(
    ("party", "verdict", "said"),
    [
        (person, "human", "message delivered"),
        (machine, "machine", "message delivered"),
        (beep, "beep", "message delivered"),
        (fax, "fax", "a fax machine"),
    ],
)
def test_a_message_finds_its_way(site: Site, party: Callable[[Party, int], None], verdict: str, said: str) -> None:
    _, bob, port = site.rings("77bob")
    assert bob.farewell(lambda: party(bob, port)) == said
    assert f"{verdict} at bob@example.com" in site.log


def test_who_presses_nothing_does_not_want_it(site: Site) -> None:
    _, bob, port = site.rings("77bob")
    bob.talks(0.6, port)
    assert bob.farewell(lambda: bob.is_silent(0.5, port)) == "nobody wants to hear it"
    assert "human at bob@example.com" in site.log


def test_a_caller_is_taken_from_a_machine_to_a_mailbox_of_ours(server: MediaServer, tmp_path: Path) -> None:
    """While the two are connected: the example of docs/flows/voicemail_detect.md."""
    with orchestrator(server, tmp_path, example("voicemail_detect.md", 3)) as port:
        site = Site(port, tmp_path)
        mailbox = site.phone("mailbox")
        alice, bob, port_of_bob = site.talk("66bob")
        bob.is_silent(0.3, port_of_bob)
        assert alice.hears_sound(lambda: bob.talks(0.2, port_of_bob)), "bob, though somebody listens to him"
        bob.farewell(lambda: bob.talks(0.5, port_of_bob))
        at_mailbox = mailbox.takes_call()
        alice.forgets()
        assert alice.hears_sound(lambda: mailbox.talks(0.4, at_mailbox)), "the mailbox"
        assert alice.hears_nothing(), "no BYE for her"
        for phone in site.phones:
            phone.close()


# --- fax_detect -------------------------------------------------------------------------------------------------------


def page(path: Path) -> None:
    """A page of a fax as a TIFF file: 1,728 by 200 dots, one bit each, a black bar every fifty lines."""
    width, height = 1_728, 200
    rows = b"".join((b"\xff" if line % 50 < 10 else b"\x00") * (width // 8) for line in range(height))
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, 1), (259, 3, 1), (262, 3, 0), (266, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, height), (279, 4, len(rows)), (282, 5, 0), (283, 5, 8), (296, 3, 2),
    ]  # fmt: skip
    end = 8 + len(rows)
    after = end + 2 + 12 * len(tags) + 4  # the two resolutions, 204 by 98 dots an inch
    entries = b"".join(
        struct.pack("<HHII", tag, kind, 1, after + number if kind == 5 else number) for tag, kind, number in tags
    )
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, end) + rows + directory + struct.pack("<4I", 204, 1, 98, 1))


def test_a_person_is_put_through(site: Site) -> None:
    alice, bob = site.phone("alice"), site.phone("bob")
    port = rtp_port(alice.call("99bob"))
    alice.is_silent(0.3, port)
    bob.takes_call(lambda: alice.type([1], port))  # in a hurry
    assert bob.hears_nothing()


def fax_of(folder: Path) -> str:
    """Name of the fax to send, in /tmp: the flow takes a single segment."""
    return f"page-of-{folder.name}.tif"


def test_a_fax_from_server_to_server(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """fax_send here calls a phone that is the number `99bob` of another orchestrator, whose fax_detect has another
    FreeSWITCH receive it."""
    page(Path("/tmp") / fax_of(site.folder))
    far = tmp_path_factory.mktemp("far")
    with (
        media_server(far) as receiver,
        orchestrator(receiver, far, "flowlang: 1\nflows: {}\n", FLOWS) as far_port,
    ):
        site.phone("fax", contact=f"<sip:99bob@127.0.0.1:{far_port}>")
        alice = site.phone("alice")
        alice.request("INVITE", "sip:fax-now@example.com", "<sip:fax-now@example.com>", 1, [], alice.sdp())
        received = Site(far_port, far)
        deadline = time.monotonic() + 120
        while not ("fax to " in site.log and "fax from " in received.log) and time.monotonic() < deadline:
            time.sleep(0.2)
    (Path("/tmp") / fax_of(site.folder)).unlink()
    assert "fax to fax@example.com: OK" in site.log
    assert "fax from alice in /tmp/fax-" in received.log and ".tif: OK" in received.log
