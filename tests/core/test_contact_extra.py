"""`register: {extra: …}`: what a flow keeps with a contact, `lookup` gives back, and a restart does not lose."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from orchestrator.flow.loader import load_program
from orchestrator.sip.location import Binding, Change
from orchestrator.store.sqlite import SCHEMA_VERSION, SqliteStore
from orchestrator.testing.world import World

FLOW = """flowlang: 1
flows:
  save:
    on: register
    do:
      - register: {extra: {tenant: acme, agent: '${request.user_agent ?? ""}'}}
  ring:
    on: invite
    do:
      - lookup: ${call.target.aor}
        where: (contact.extra['tenant'] ?? '') == 'acme' and contact.q > 0.5
        as: found
      - log: '${size(found)} of acme'
      - reply: 480
"""


def world(tmp_path: Path, store: SqliteStore) -> World:
    path = tmp_path / "extra.flow.yaml"
    path.write_text(FLOW)
    return World(load_program([path])[0], store=store)


def test_lookup_gives_back_what_was_kept_also_after_a_restart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "location.db")
    first = world(tmp_path, store)
    first.phone("bob@example.com", "10.0.0.3").register()
    first.run()
    store.close()
    again = world(tmp_path, SqliteStore(tmp_path / "location.db"))
    again.location.load(again.engine.wall)
    (binding,) = again.location
    assert binding.extra == {"tenant": "acme", "agent": "test phone"}
    said: list[str] = []
    again.engine.host.on_log = lambda run, effect: said.append(effect.text)
    again.phone("alice@example.com", "10.0.0.2").invite("bob@example.com")
    again.run()
    assert said == ["1 of acme"]


def test_a_file_of_the_first_version_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "location.db"
    store = SqliteStore(path)
    store.write([Change("added", Binding("bob@example.com", b"sip:bob@10.0.0.3", 2e9))])
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE secret")
        connection.execute("ALTER TABLE binding DROP COLUMN extra")
        connection.execute("ALTER TABLE binding DROP COLUMN source")
        connection.execute("ALTER TABLE binding DROP COLUMN parameters")
        connection.execute("ALTER TABLE binding DROP COLUMN point")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    store = SqliteStore(path)
    (binding,) = store.load(0)
    assert (binding.aor, binding.extra) == ("bob@example.com", None)
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()
