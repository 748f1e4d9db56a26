"""Pages of calls that only the archive has."""

from __future__ import annotations

import re
from pathlib import Path

import gevent
import pytest
from console_stage import Browser, ConsoleStage

from orchestrator.archive import call_archive
from orchestrator.archive.call_archive import CallArchive

FLOWS = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - relay: registered\n"


def test_a_call_of_the_archive_has_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_archive, "EVERY", 0.01)
    stage = ConsoleStage(FLOWS)
    engine = stage.world.engine
    archive = CallArchive(tmp_path / "calls.db", 30, engine.history, stage.history.facts, lambda: engine.wall)
    stage.ended._archive = archive
    archive.start()
    try:
        stage.world.phone("alice@example.com", "10.0.0.2").invite("bob@example.com", headers=(b"Subject: <script>",))
        stage.world.run(60)
        with gevent.Timeout(20):
            while not archive.written:
                gevent.sleep(0.01)
        (kept,) = stage.history.ended()
        stage.history._forget(kept.id)
        browser = Browser(stage)
        assert f'href="/calls/{kept.id}"' in browser.page("/archive?of=bob&code=480")
        text = browser.page(f"/calls/{kept.id}")
        assert '<span class="badge ended">ended</span>' in text and "relay to registered" in text
        assert "100 Trying" in text and "hx-sse:connect" not in text
        first = re.findall(r'data-message="([\d.]+)"', text)[0]
        assert "Subject: &lt;script&gt;" in browser.page(f"/calls/{kept.id}/messages/{first}")
        archive._pen.apply(lambda: (archive._file.close(), archive._file.path.unlink(), archive._file.path.mkdir()))
        assert "cannot be read" in browser.page("/archive")
    finally:
        archive.close()
