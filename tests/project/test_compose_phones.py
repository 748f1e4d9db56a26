"""docs/compose.md, done: two softphones, the containers' services, the flow of the page, and the keys it asks for."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from compose_lab import Lab, Processes, Softphone, missing, wait_for
from media_server import needs_freeswitch
from test_compose import OUTSIDE, REPOSITORY, read_compose, settings_in

from orchestrator.flow.loader import load_sources, read_sources
from orchestrator.resources import known_resources

PAGE = (REPOSITORY / "docs" / "compose.md").read_text()


def shown(pattern: str) -> str:
    """The one place of the page that looks so."""
    (found,) = re.findall(pattern, PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


ADDRESS = shown(r'^echo "SIP_ADVERTISE=([0-9.]+)" ')
FLOW_FILE = shown(r"^Save this as `([^`]+)`")
FLOW = shown(r"^```yaml[^\n]*\n(.*?)^```")


def test_the_flow_loads_beside_those_that_are_there(tmp_path: Path) -> None:
    """All flow files are one program: a name that is defined twice is an error, and the page's flow is never taken."""
    shutil.copytree(REPOSITORY / "flows", tmp_path / "flows")
    (tmp_path / FLOW_FILE).write_text(FLOW)
    settings = settings_in(read_compose(OUTSIDE), tmp_path)
    _, warnings = load_sources(read_sources([tmp_path / "flows"]), known_resources(settings))
    assert [warning for warning in warnings if warning.code != "W310"] == []  # no push service is configured


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    processes = Processes()
    try:
        lab = Lab(tmp_path_factory.mktemp("compose"), {"SIP_ADVERTISE": ADDRESS}, processes)
        lab.wait_until_ready()
        yield lab
    finally:
        processes.end()


@pytest.fixture(scope="module")
def phones(lab: Lab) -> tuple[Softphone, Softphone]:
    return lab.phone("alice", 21), lab.phone("bob", 22)


@pytest.fixture(scope="module")
def flow(lab: Lab) -> None:
    (lab.folder / FLOW_FILE).write_text(FLOW)
    lab.reload()
    lab.orchestrator.output.wait(shown(r"\.\.\. (flows_reloaded)$"))


class TestPhones:
    pytestmark: ClassVar = [
        *needs_freeswitch,
        pytest.mark.timeout(500),
        pytest.mark.skipif(missing() != "", reason=missing() or "-"),
    ]

    def test_both_register(self, lab: Lab, phones: tuple[Softphone, Softphone]) -> None:
        assert re.search(r"^orchestrator_bindings 2(\.0)?$", metrics(lab), re.MULTILINE)

    def test_talking_works_both_ways(self, lab: Lab, phones: tuple[Softphone, Softphone]) -> None:
        alice, bob = phones
        talk(alice, bob, "bob", lab.address)
        assert [heard_from(phone) for phone in phones] == [bob.address, alice.address]
        alice.type("/hangup\n")
        bob.wait("session closed")

    def test_the_certificate_of_the_first_start_is_trusted(self, lab: Lab) -> None:
        assert lab.visit(23).startswith("426 This port speaks SIP over WebSocket")

    @pytest.mark.usefixtures("flow")
    def test_five_ends_the_call(self, lab: Lab, phones: tuple[Softphone, Softphone]) -> None:
        alice, bob = phones
        talk(alice, bob, "77bob", lab.address)
        assert [heard_from(phone) for phone in phones] == [lab.address] * 2
        bob.type("5")
        bob.wait("session closed")
        alice.wait("session closed")
        lab.orchestrator.output.wait(shown(r"log says `(77bob pressed 5)`"))

    @pytest.mark.usefixtures("flow")
    def test_two_lets_it_go_on(self, lab: Lab, phones: tuple[Softphone, Softphone]) -> None:
        alice, bob = phones
        talk(alice, bob, "77bob", lab.address)
        assert [heard_from(phone) for phone in phones] == [lab.address] * 2
        bob.type("2")
        lab.orchestrator.output.wait("77bob pressed 2")
        time.sleep(1)
        assert not any(phone.output.find("session closed") for phone in phones)
        alice.type("/hangup\n")
        bob.wait("session closed")
        wait_for("end of the call", lambda: "orchestrator_calls 0" in metrics(lab), lambda: metrics(lab))


def talk(alice: Softphone, bob: Softphone, dialled: str, domain: str) -> None:
    alice.output.look_away()
    bob.output.look_away()
    alice.type(f"/dial sip:{dialled}@{domain}\n")
    bob.wait("Incoming call from: .*alice")
    alice.wait("180 Ringing")
    bob.type("/accept\n")
    alice.wait("Call established")
    bob.wait("Call established")


def metrics(lab: Lab) -> str:
    return lab.admin("metrics")


def heard_from(phone: Softphone) -> str:
    """Where its first sound has come from."""
    return phone.wait(r"incoming rtp for 'audio' established, receiving from ([0-9.]+):")[1]
