"""The Python of docs/testing-freeswitch.md is run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.testing.esl_rules import Rule
from orchestrator.testing.freeswitch import FakeFreeSwitch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing-freeswitch.md"
TEXT = PAGE.read_text(encoding="utf-8")


def examples() -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {}
    for block in re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        names: dict[str, object] = {"__name__": PAGE.stem}
        exec(compile(block, str(PAGE), "exec"), names)
        found |= {name: test for name, test in names.items() if name.startswith("test_") and callable(test)}
    return found


@pytest.mark.parametrize("name", examples())
def test_the_example_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    examples()[name]()


def test_what_the_page_names_exists() -> None:
    fake = FakeFreeSwitch()
    for name in re.findall(r"^\| .*?\|", TEXT, re.MULTILINE):
        for word in re.findall(r"`(\.?)(\w+)(?:\(| =|`)", name):
            dot, attribute = word
            if attribute not in ("FakeFreeSwitch", "close", "rude", "silent"):
                assert hasattr(Rule if dot else fake, attribute), attribute
