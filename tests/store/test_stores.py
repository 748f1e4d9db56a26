"""What every location store promises, asked of each."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import StoreError
from orchestrator.sip.location import Binding, Change, Location
from orchestrator.sip.stores import LocationStore
from orchestrator.store import open_store
from orchestrator.store.memory import MemoryStore
from orchestrator.store.sqlite import SqliteStore

NOW = 1_800_000_000.0
FIXTURES = Path(__file__).parents[1] / "fixtures"

FULL = Binding(
    aor="bob@example.com",
    contact=b"sip:bob@10.0.0.5:5062;pn-provider=apns;pn-prid=1",
    expires_at=NOW + 3600.25,
    q=0.7,
    call_id=b"f81d4fae@\xff\x00",
    cseq=2**31 - 1,
    path=(b"<sip:edge1.example.com;lr>", b"<sip:edge2.example.com;lr>"),
    received=("2001:db8::5", 41000),
    transport="tls",
    user_agent="Phöne/1.0",
    instance="urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    reg_id=1,
    registered_at=NOW - 0.5,
    woken_upstream=True,
)
PLAIN = Binding("al%00ice\x00@example.com", b"sip:alice@10.0.0.6", NOW + 60)


def added(bindings: Iterable[Binding]) -> list[Change]:
    return [Change("added", binding) for binding in bindings]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocationStore]:
    opened = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "location.db")
    yield opened
    opened.close()


def test_what_was_written_is_loaded_to_the_last_field(store: LocationStore) -> None:
    store.write(added([FULL, PLAIN]))
    assert sorted(store.load(NOW), key=lambda b: b.aor) == [PLAIN, FULL]


def test_a_binding_is_keyed_by_aor_and_contact(store: LocationStore) -> None:
    newer = Binding(PLAIN.aor, PLAIN.contact, NOW + 120, cseq=2)
    elsewhere = Binding("carol@example.com", PLAIN.contact, NOW + 60)
    store.write(added([PLAIN, elsewhere]))
    store.write(added([newer]))
    assert sorted(store.load(NOW), key=lambda b: b.aor) == [newer, elsewhere]


def test_one_write_deletes_before_it_puts(store: LocationStore) -> None:
    store.write(added([PLAIN, FULL]))
    gone = (PLAIN, FULL, Binding("nobody@x", b"sip:n@x", NOW))
    store.write([*added([FULL]), *(Change("removed", binding) for binding in gone)])
    assert list(store.load(NOW)) == [FULL]


def test_expired_bindings_are_forgotten_at_load(store: LocationStore) -> None:
    store.write(added([FULL, PLAIN]))
    assert list(store.load(PLAIN.expires_at)) == [FULL]
    assert list(store.load(NOW)) == [FULL], "and do not come back when the clock is set back"


def test_a_write_is_done_in_the_turn(store: LocationStore) -> None:
    assert store.write(added([FULL])) is None


def test_the_first_key_is_kept_and_is_no_binding(store: LocationStore) -> None:
    assert store.route_key(b"1" * 32) == store.route_key(b"2" * 32) == b"1" * 32
    assert list(store.load(NOW)) == []


def test_close_twice(store: LocationStore) -> None:
    store.close()
    store.close()


bindings = st.builds(
    Binding,
    aor=st.text(max_size=20),
    contact=st.binary(max_size=20),
    expires_at=st.floats(NOW + 1, NOW + 1e9),
    q=st.floats(0, 1),
    call_id=st.binary(max_size=10),
    cseq=st.integers(0, 2**31 - 1),
    path=st.lists(st.binary(min_size=1, max_size=9).filter(lambda value: b"\n" not in value), max_size=3).map(tuple),
    received=st.none() | st.tuples(st.text(max_size=9), st.integers(1, 65535)),
    transport=st.sampled_from(["udp", "tcp"]),
    user_agent=st.text(max_size=20),
    instance=st.none() | st.text(max_size=20),
    reg_id=st.none() | st.integers(1, 2**31),
    registered_at=st.floats(0, NOW),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(bindings, max_size=5, unique_by=lambda b: (b.aor, b.contact)))
def test_sqlite_gives_back_any_binding(tmp_path: Path, written: list[Binding]) -> None:
    path = tmp_path / "any.db"
    path.unlink(missing_ok=True)
    store = SqliteStore(path)
    store.write(added(written))
    loaded = list(store.load(NOW))
    store.close()
    assert sorted(loaded, key=repr) == sorted(written, key=repr)


def test_the_configuration_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_store("memory:"), MemoryStore)
    relative, absolute = open_store("sqlite:///here.db"), open_store(f"sqlite:///{tmp_path}/there.db")
    assert isinstance(relative, SqliteStore) and isinstance(absolute, SqliteStore)
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["here.db", "there.db"]
    relative.close()
    absolute.close()
    for wrong in ("redis://localhost", "sqlite:///", "memory", ""):
        with pytest.raises(ValueError, match="not a location store"):
            open_store(wrong)


def test_a_full_size_table_loads_at_start(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "location.db")
    store.write(added([Binding(f"u{n}@example.com", b"sip:u@10.0.0.1", NOW + 60 + n % 7) for n in range(20_000)]))
    location = Location(store)
    assert location.load(NOW) == 20_000
    assert location.next_expiry == NOW + 60
    location.expire(NOW + 60)
    store.close()
    reopened = SqliteStore(tmp_path / "location.db")
    assert Location(reopened).load(NOW) == len(location) < 20_000
    reopened.close()


def test_a_value_the_file_cannot_hold_is_a_store_error(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "location.db")
    for odd in (Binding("a@x", b"c", NOW + 1, cseq=2**64), Binding("a\ud800@x", b"c", NOW + 1)):
        with pytest.raises(StoreError):
            store.write(added([PLAIN, odd]))
    assert list(store.load(NOW)) == [], "nothing of the failed writes stays"
    store.close()


def test_the_key_and_the_bindings_of_a_file_of_schema_3_are_kept(tmp_path: Path) -> None:
    """The file was made by the version before the key had a table of its own."""
    path = tmp_path / "location.db"
    shutil.copy(FIXTURES / "location" / "schema3.sqlite", path)
    bob = Binding(
        "bob@example.com",
        b"sip:bob@10.0.0.3:5060;pn-provider=apns;pn-prid=p1",
        4e9,
        0.5,
        b"c1@10.0.0.3",
        7,
        (b"<sip:edge.example.com;lr>", b"<sip:10.0.0.9;lr>"),
        ("203.0.113.7", 40123),
        "tcp",
        "Phone/1",
        "urn:uuid:1",
        2,
        1.8e9,
        {"device": "ios"},
        "203.0.113.7",
    )
    alice = Binding("alice@example.com", b"sip:alice@10.0.0.2", 4e9, registered_at=1.8e9)
    for _ in range(2):
        store = SqliteStore(path)
        assert store.set_aside is None
        assert sorted(store.load(NOW), key=lambda b: b.aor) == [alice, bob]
        assert store.route_key(bytes(32)) == bytes(range(32))
        store.close()


def test_text_of_the_file_that_is_no_utf_8_is_read_nevertheless(tmp_path: Path) -> None:
    path = tmp_path / "registrations.db"
    store = SqliteStore(path)
    store.write(added([FULL, PLAIN]))
    store.close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE binding SET user_agent = CAST(x'41ff42' AS TEXT) WHERE aor = ?", (FULL.aor,))
    store = SqliteStore(path)
    found = {binding.aor: binding.user_agent for binding in store.load(NOW)}
    store.close()
    assert found == {FULL.aor: "A\ufffdB", PLAIN.aor: PLAIN.user_agent}
