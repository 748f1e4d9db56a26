"""The catalogue of codes is one: in the code, in the documentation, in what the checks can say."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.flow.language import catalogue

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"\b([EW][0-9]{3})\b")


def test_documentation_has_every_code_once() -> None:
    text = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| ([EW][0-9]{3}) \|", text, re.MULTILINE) == sorted(catalogue.CATALOGUE)


def test_code_uses_no_other_codes() -> None:
    used: set[str] = set()
    for file in (*(ROOT / "orchestrator" / "flow").rglob("*.py"), ROOT / "orchestrator" / "site.py"):
        if file.name != "catalogue.py":
            used |= set(re.findall(r"\"([EW][0-9]{3})\"", file.read_text(encoding="utf-8")))
    assert used == set(catalogue.CATALOGUE)


def test_codes_are_errors_or_warnings_with_a_line_each() -> None:
    for code, meaning in catalogue.CATALOGUE.items():
        assert CODE.fullmatch(code)
        assert meaning and "\n" not in meaning
