"""docs/operations.md and deploy/: metrics that exist, a unit that systemd takes, a backup that can be restored."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.app import Server
from orchestrator.errors import StoreError
from orchestrator.settings import Settings, read_settings
from orchestrator.sip.location import Binding, Change
from orchestrator.site import read_site
from orchestrator.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "operations.md"

FLOW = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do: [{reply: {code: 404, reason: Nobody}}]\n"
CONFIG = """\
sip: {listen: 'udp:127.0.0.1:0'}
location: 'memory:'
freeswitch: {fs1: {host: 127.0.0.1, port: 1, probe: 5s}}
flows: FOLDER
admin: {listen: '127.0.0.1:0', archive: {file: FOLDER/calls.db}}
cdr: FOLDER/cdr.jsonl
push: {services: {own: {type: http, url: 'https://push.example.com/'}}}
sinks: {lines: {type: file, path: FOLDER/events.jsonl, events: [registered], spool: {file: FOLDER/spool.db}}}
"""
ONLY_WITH_TLS = {"orchestrator_tls_certificate_expires"}


def dashboard() -> dict[str, Any]:
    found = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    assert isinstance(found, dict)
    return found


def expressions() -> Iterator[str]:
    """PromQL of the dashboard, of the alerts and of the page of metrics."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
    for group in yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if re.match(r"(sum|histogram_quantile)\b", line):
            yield line


@pytest.fixture
def families(tmp_path: Path) -> dict[str, set[str]]:
    """Each name that /metrics has, with its labels."""
    (tmp_path / "a.flow.yaml").write_text(FLOW)
    found: dict[str, set[str]] = {}
    with ExitStack() as stack:
        server = Server(read_site(read_settings("o.yml", CONFIG.replace("FOLDER", str(tmp_path)), {}), {}), stack)
        for family in server.metrics.registry.collect():
            labels = set(getattr(family, "_labelnames", ()))
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            for ending in endings:
                found[family.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def test_every_metric_of_the_dashboard_and_the_alerts_is_exported(families: dict[str, set[str]]) -> None:
    queries = list(expressions())
    assert len(queries) > 60
    for query in queries:
        names = set(re.findall(r"\b(?:orchestrator|process)_\w+", query)) - ONLY_WITH_TLS
        assert names <= families.keys(), query
        known = {"instance", "job"}.union(*(families[name] for name in names))
        labels = {
            label
            for inner in re.findall(r"\{([^}]*)\}", query)
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inner)
        }
        labels |= {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", query) for label in by.split(",")}
        assert labels <= known, query


def test_every_metric_is_on_the_page_of_metrics(families: dict[str, set[str]]) -> None:
    """Or on that of its part; with its labels."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    told = page + "".join(other.read_text() for other in (ROOT / "docs").glob("*.md"))
    rows = re.findall(r"^\| `(orchestrator_\w+)` \|((?: `\w+`,?)*) \| [^|]+\|$", page, re.MULTILINE)
    by = {name: set(re.findall(r"\w+", labels)) for name, labels in rows}
    assert len(by) > 80
    for name, labels in families.items():
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if name.startswith("orchestrator_"):
            assert family in told, name
            assert labels - {"le"} == by.get(family, labels - {"le"}), name


def test_the_one_metric_that_needs_a_certificate_is_in_the_code() -> None:
    source = (ROOT / "orchestrator" / "runtime" / "gauges.py").read_text()
    assert all(f'"{name.removeprefix("orchestrator_")}"' in source for name in ONLY_WITH_TLS)


def test_panels_do_not_overlap_and_have_names() -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert panel["title"] and not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def test_the_page_says_what_to_do_at_each_alert() -> None:
    alerts = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus-alerts.yml").read_text())
    assert sorted(set(re.findall(r"`(Orchestrator\w+)`", PAGE.read_text()))) == sorted(alerts)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)")
def test_prometheus_takes_the_alerts_and_queries(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(expressions())]
    shown = tmp_path / "rules.yml"
    shown.write_text(json.dumps({"groups": [{"name": "shown", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", shown, DEPLOY / "prometheus-alerts.yml"], check=True, timeout=60)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """The program is not installed here; everything else is looked at."""
    text = (DEPLOY / "orchestrator.service").read_text()
    unit = tmp_path / "orchestrator.service"
    unit.write_text(text.replace("/opt/orchestrator/bin/orchestrator", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_drain_is_shorter_than_the_patience_of_systemd() -> None:
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "orchestrator.service").read_text(), re.MULTILINE)
    stop = Settings().stop
    assert stop.setup + stop.ringing + 12 <= float(patience)


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft (Debian's package nftables)")
def test_nftables_takes_the_firewall() -> None:
    done = subprocess.run(["nft", "-c", "-f", DEPLOY / "orchestrator.nft"], capture_output=True, text=True, timeout=60)
    if "Operation not permitted" in done.stderr or "cache initialization failed" in done.stderr:
        pytest.skip("the kernel lets us not look")
    assert (done.returncode, done.stderr) == (0, "")


def bound(number: int) -> Change:
    binding = Binding(f"bob{number}@example.com", b"sip:bob@192.0.2.7:5060", 4e9, 1.0, b"call", 1)
    return Change("added", binding)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3")
def test_the_backup_of_a_running_server_can_be_restored(tmp_path: Path) -> None:
    """The command of the page, while bindings are written; then its copy is a store."""
    (command, *_) = (line for line in PAGE.read_text().splitlines() if "VACUUM INTO '" in line)
    command = command.replace("/var/lib/orchestrator/", f"{tmp_path}/").replace("/var/backups/", f"{tmp_path}/saved-")
    store = SqliteStore(tmp_path / "orchestrator.db")
    with closing(store):
        for number in range(500):
            store.write([bound(number)])
        with pytest.raises(StoreError, match="in use by another instance"):
            SqliteStore(tmp_path / "orchestrator.db")
        process = subprocess.Popen(["sh", "-c", command])
        number = 500
        while process.poll() is None or number < 600:
            store.write([bound(number)])  # raises StoreError if the copy stood in the way
            number += 1
        assert process.wait(60) == 0
    with closing(sqlite3.connect(tmp_path / "saved-orchestrator.db")) as saved:
        assert saved.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    restored = SqliteStore(tmp_path / "saved-orchestrator.db")
    with closing(restored):
        assert restored.set_aside is None
        assert 500 <= len(list(restored.load(0.0))) <= number
