"""Addresses of this machine, and when Python collects its garbage."""

from __future__ import annotations

import gc
import socket
from pathlib import Path
from weakref import ref

import pytest

from orchestrator.runtime import garbage, interfaces
from orchestrator.runtime.garbage import (
    AT_LAST,
    DAY,
    FEW_LOOKS,
    MUCH,
    FullCollections,
    Look,
    perform,
)
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
    assert full.due(10.0, 5, 1_000, 9) is Look.FULL  # half an input per second
    assert full.due(20.0, 1_005, 1_000, 9) is Look.NONE  # a hundred per second
    assert full.due(30.0, 2_005, 1_000, 9) is Look.NONE
    assert full.due(40.0, 2_010, 1_000, 9) is Look.FULL


def test_full_collections_wait_until_little_is_held() -> None:
    full = FullCollections(0.0, 1_000)
    assert full.due(10.0, 5, 1_001 + MUCH, 0) is Look.NONE  # nothing comes in, but thousands of calls wait
    assert full.due(20.0, 10, 1_000 + MUCH, 0) is Look.FULL


@pytest.mark.parametrize("looks", [0, FEW_LOOKS + 1])
def test_full_collections_do_not_wait_for_ever(looks: int) -> None:
    full = FullCollections(0.0, 0)
    asked = ((second, full.due(float(second), second * 100, 0, looks)) for second in range(10, 12_600, 10))
    due = [(second, found) for second, found in asked if found is not Look.NONE][:3]
    assert due == [(AT_LAST, Look.FULL), (2 * AT_LAST, Look.FULL), (3 * AT_LAST, Look.FULL)]


def test_what_has_survived_is_frozen_in_small_pieces_where_much_is_held() -> None:
    full = FullCollections(0.0, 0)
    much = MUCH + 1
    looks = (1, FEW_LOOKS, 0, FEW_LOOKS + 1)
    found = [full.due(10.0 * number, 10_000 * number, much, count) for number, count in enumerate(looks, 1)]
    assert found == [Look.FREEZE, Look.FREEZE, Look.NONE, Look.ASIDE]
    assert full.due(50.0, 80_000, MUCH, 1) is Look.NONE  # little is held now, but much comes in
    assert full.due(60.0, 80_000, MUCH, 1) is Look.EVERYTHING
    assert full.due(70.0, 80_000, MUCH, 1) is Look.FULL, "nothing is frozen but what was there at the start"


def test_what_was_frozen_waits_for_a_day_at_most() -> None:
    full = FullCollections(0.0, 0)
    asked = range(600, 3 * 86_400, 600)
    everything = [second for second in asked if full.due(float(second), 0, 2 * MUCH, 1) is Look.EVERYTHING]
    assert everything == [600 + DAY, 1200 + 2 * DAY]


def test_the_day_of_what_was_frozen_begins_when_it_is_frozen() -> None:
    full = FullCollections(0.0, 0)
    quiet = [full.due(DAY * number, 0, 0, 1) for number in (1, 2)]
    rush = [full.due(2 * DAY + seconds, 10_000 * seconds, MUCH + 1, 1) for seconds in (10, 20, 30)]
    assert quiet == [Look.FULL] * 2 and rush == [Look.FREEZE] * 3


def test_a_busy_server_does_not_walk_over_what_was_frozen() -> None:
    """Code, modules and registrations are among it: that takes a tenth of a second at least."""
    full = FullCollections(0.0, 0)
    assert full.due(10.0, 10_000, MUCH + 1, 1) is Look.FREEZE
    asked = [(second, full.due(float(second), second * 1_000, MUCH, 1)) for second in range(20, int(DAY) + 1200, 10)]
    due = [(second, look) for second, look in asked if look is not Look.NONE]
    assert due[:2] == [(10 + AT_LAST, Look.FULL), (10 + 2 * AT_LAST, Look.FULL)]
    everything = [second for second, look in due if look is Look.EVERYTHING]
    assert len(everything) == 1 and everything[0] == 10 + DAY


class Ring:
    """An object that only the collector frees, once nobody holds it."""

    def __init__(self) -> None:
        self.itself = self


def test_rings_are_freed_by_the_look_that_sees_them() -> None:
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(0)
    try:
        young, old = ref(Ring()), Ring()
        perform(Look.NONE)
        assert young() is not None
        perform(Look.FREEZE)
        assert young() is None
        frozen, aside = ref(old), ref(Ring())
        del old
        perform(Look.ASIDE)
        assert aside() is not None, "it was not looked at"
        perform(Look.FULL)
        assert frozen() is not None, "it was frozen while somebody held it"
        perform(Look.EVERYTHING)
        assert frozen() is None and aside() is None
        assert gc.get_freeze_count() > 1_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def test_freeze_takes_what_exists_out_of_sight() -> None:
    thresholds = gc.get_threshold()
    try:
        garbage.freeze()
        assert gc.get_freeze_count() > 1_000
        assert gc.get_threshold() == (garbage.YOUNG, garbage.NEVER, garbage.NEVER)
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
