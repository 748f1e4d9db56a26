"""What is counted is exported: the counters of the code are found in its source, so that a new one is asked about."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from orchestrator.flow.run.scheduler import Stats
from orchestrator.measures import Measures
from orchestrator.push import push_metrics
from orchestrator.runtime import gauges
from orchestrator.runtime.esl_connection import EslCounters

PACKAGE = Path(gauges.__file__).parents[1]
ROOMS = ("core", "sip", "esl", "events", "flow", "store", "runtime", "push")

STATE = {
    "answer": "octets of one answer of a push service",
    "asked": "tokens that one push service account was asked for",
    "bindings": "contacts of one phone that sleeps",
    "breadth": "branches that a request may still have (RFC 5393)",
    "busy": "commands of one connection under way",
    "by_source": "connections of one source",
    "charges": "charges of one run",
    "connections": "links that one account of Apple has opened, for tests",
    "cseq": "a sequence number",
    "end": "a place in a text",
    "ended": "a tuple of To tags",
    "heard": "datagrams of one transaction's source",
    "keys": "the keys of one collect",
    "left": "works of calls that are over and are not done",
    "left_out": "lines of one trace",
    "listeners": "subscriptions of one run",
    "live": "a part of trace_octets",
    "messages": "messages of one connection that wait",
    "made": "tokens of one account of Apple, for tests",
    "missed": "pings of one phone without an answer",
    "nodes": "nodes of one YAML file",
    "offset": "a place in a text",
    "own": "sequence numbers of one dialog",
    "pending": "requests of one source under way",
    "points": "what one source has used of its share",
    "pushed": "phones pushed for one call",
    "refers": "transfers of one dialog",
    "repeated": "answers of one transaction",
    "size": "octets that wait on one connection",
    "start": "a place in a text",
    "steps": "steps of one run",
    "strangers_pending": "a part of transactions_unanswered",
    "taken": "events of one subscription",
    "tasks": "tasks of one run",
    "told": "answers of one transaction",
    "unacknowledged": "2xx of one source without an ACK",
    "unsent": "messages that one connection could not send",
    "woken": "phones that woke up for one request",
}
"""Public attributes that code adds to and that are no counters since the start, with what they are."""


def added_to() -> dict[str, str]:
    """Public attributes that something is added to, with the first place."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for file in sorted((PACKAGE / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
                    target = node.target.value if isinstance(node.target, ast.Subscript) else node.target
                    if isinstance(target, ast.Attribute) and not target.attr.startswith("_"):
                        found.setdefault(target.attr, f"{file.relative_to(PACKAGE)}:{node.lineno}")
    return found


def exported() -> set[str]:
    """Attributes that /metrics reads."""
    trees = [ast.parse(Path(str(module.__file__)).read_text()) for module in (gauges, push_metrics)]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_counter_is_exported_or_said_to_be_none() -> None:
    missing = {name: place for name, place in added_to().items() if name not in exported() | STATE.keys()}
    assert not missing, "export these in runtime/gauges.py, or say in STATE what they are"


def test_what_is_said_to_be_no_counter_is_there() -> None:
    assert STATE.keys() <= added_to().keys()


@pytest.mark.parametrize("counters", [Stats, EslCounters])
def test_every_field_of_a_class_of_counters_is_exported(counters: type) -> None:
    """By the object that holds it: two classes may count under the same name."""
    source = Path(gauges.__file__).read_text()
    holder = {"Stats": "stats", "EslCounters": "link.counters"}[counters.__name__]
    assert [field.name for field in fields(counters) if f"{holder}.{field.name}" not in source] == []


def test_every_measure_is_exported_and_on_the_page_of_metrics() -> None:
    source = Path(gauges.__file__).read_text()
    assert [name for name in Measures.__slots__ if f"measures.{name}." not in source] == []
    page = (PACKAGE.parent / "docs" / "metrics.md").read_text()
    measures = source[source.index("def _export_measures") : source.index("def _by_method")]
    names = re.findall(r'^ {8}"([a-z_]+)",$', measures, re.MULTILINE)
    assert (
        len(names) >= len(Measures.__slots__) and [name for name in names if f"orchestrator_{name}" not in page] == []
    )
