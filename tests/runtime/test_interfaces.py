"""Addresses of this machine, and when Python collects its garbage."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest

from orchestrator.runtime import garbage, interfaces
from orchestrator.runtime.garbage import AT_LAST, AT_LAST_OF_MUCH, MUCH, FullCollections
from orchestrator.runtime.interfaces import is_wildcard, outward_address, own_addresses

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.0
           /24 link UNICAST
        |-- 10.0.0.5
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /32 link BROADCAST
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
"""

IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000001122fffe334455 02 40 20 80     eth0
"""


@pytest.mark.parametrize(("host", "expected"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False), ("::1", False)])
def test_wildcards(host: str, expected: bool) -> None:
    assert is_wildcard(host) is expected


def test_own_addresses_are_what_the_kernel_calls_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("FIB_TRIE", FIB_TRIE), ("IF_INET6", IF_INET6)):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(interfaces, name, tmp_path / name)
    assert own_addresses("0.0.0.0") == ("10.0.0.5", "127.0.0.1")
    assert own_addresses("::") == ("::1", "fe80::11:22ff:fe33:4455")


def test_own_addresses_where_the_kernel_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "FIB_TRIE", tmp_path / "none")
    assert own_addresses("0.0.0.0") == ()


def test_outbound_address_is_one_we_can_bind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((outward_address("0.0.0.0"), 0))
    if Path("/proc/net/if_inet6").exists():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind((outward_address("::"), 0))


def test_machine_without_a_network_has_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unconnected(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "socket", Unconnected)
    assert outward_address("0.0.0.0") == "127.0.0.1"
    assert outward_address("::") == "::1"


# --- garbage ----------------------------------------------------------------------------------------------------------


def test_full_collections_wait_for_quiet() -> None:
    full = FullCollections(0.0, 1_000)
    assert full.due(10.0, 5, 1_000)  # half an input per second
    assert not full.due(20.0, 1_005, 1_000)  # a hundred per second
    assert not full.due(30.0, 2_005, 1_000)
    assert full.due(40.0, 2_010, 1_000)


def test_full_collections_wait_until_little_is_held() -> None:
    full = FullCollections(0.0, 1_000)
    assert not full.due(10.0, 5, 1_001 + MUCH)  # nothing comes in, but thousands of calls wait
    assert full.due(20.0, 10, 1_000 + MUCH)


@pytest.mark.parametrize(("held", "at_last"), [(0, AT_LAST), (2 * MUCH, AT_LAST_OF_MUCH)])
def test_full_collections_do_not_wait_for_ever(held: int, at_last: float) -> None:
    full = FullCollections(0.0, 0)
    step = int(at_last) // 60
    due = [second for second in range(step, int(3.5 * at_last), step) if full.due(float(second), second * 100, held)]
    assert due == [at_last, 2 * at_last, 3 * at_last]


def test_freeze_takes_what_exists_out_of_sight() -> None:
    thresholds = gc.get_threshold()
    try:
        garbage.freeze()
        assert gc.get_freeze_count() > 1_000
        assert gc.get_threshold() == (garbage.YOUNG, garbage.NEVER, garbage.NEVER)
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
