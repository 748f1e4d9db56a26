"""How diagnostics are printed: for people (source line, caret, help), for tools (JSON, SARIF) and for GitHub.

The text form is the one of FLOWLANG §8. Nothing of a user's file reaches a terminal or an annotation unescaped: a
flow file may come from a stranger's pull request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.errors import Diagnostic
from orchestrator.flow.language.catalogue import CATALOGUE

LINE_LIMIT = 160
"""Source lines longer than this are cut around the caret."""

LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""What ends a line for YAML 1.1, so that line numbers agree with the parser's."""

Sources = Mapping[str, str]
"""File name as it stands in diagnostics → text of the file."""


def in_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Sorted by file and place; of several at one place the order of discovery stays."""
    return sorted(diagnostics, key=lambda d: (d.file, d.line, d.column))


# --- text -----------------------------------------------------------------------------------------------------------


def render_text(diagnostics: Iterable[Diagnostic], sources: Sources) -> str:
    """All diagnostics with source line, caret, notes and help, one blank line between them."""
    lines: dict[str, list[str]] = {name: LINE_BREAK.split(text) for name, text in sources.items()}
    return "\n".join(_render_one(diagnostic, lines.get(diagnostic.file, [])) for diagnostic in diagnostics)


def _render_one(diagnostic: Diagnostic, lines: Sequence[str]) -> str:
    rows = [_plain(str(diagnostic))]
    if 0 < diagnostic.line <= len(lines):
        rows += _excerpt(diagnostic, lines[diagnostic.line - 1])
    rows += [f"     = {_plain(note)}" for note in diagnostic.notes]
    if diagnostic.help:
        rows.append(f"     = help: {_plain(diagnostic.help)}")
    return "\n".join(rows) + "\n"


def _excerpt(diagnostic: Diagnostic, line: str) -> list[str]:
    """The source line and the caret line under it."""
    start = diagnostic.column - 1
    length = max(1, min(diagnostic.length, len(line) - start))
    if len(line) > LINE_LIMIT:
        cut = max(0, start - LINE_LIMIT // 2)
        line, start = line[cut : cut + LINE_LIMIT], start - cut
        length = max(1, min(length, len(line) - start))
    shown = _plain(line)
    return [f"{diagnostic.line:>4} | {shown}", f"     | {' ' * start}{'^' * length}"]


def _plain(text: str) -> str:
    """Printable characters only, each one column wide in code points (a tab becomes a blank)."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "�" for c in text)


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """`2 errors, 1 warning`; `no problems found` for none."""
    found = list(diagnostics)
    parts = [_count([d for d in found if d.severity == severity], severity) for severity in ("error", "warning")]
    return ", ".join(part for part in parts if part) or "no problems found"


def _count(found: Sequence[Diagnostic], word: str) -> str:
    return f"{len(found)} {word}{'s' if len(found) > 1 else ''}" if found else ""


# --- tools ----------------------------------------------------------------------------------------------------------


def render_json(diagnostics: Iterable[Diagnostic]) -> str:
    """A JSON list, one object per diagnostic with the fields of `Diagnostic`."""
    return json.dumps([_as_object(d) for d in diagnostics], indent=2, ensure_ascii=False)


def _as_object(diagnostic: Diagnostic) -> dict[str, Any]:
    found: dict[str, Any] = {
        "file": diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "length": diagnostic.length,
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
    }
    if diagnostic.notes:
        found["notes"] = list(diagnostic.notes)
    if diagnostic.help:
        found["help"] = diagnostic.help
    return found


def render_sarif(diagnostics: Iterable[Diagnostic], version: str = "") -> str:
    """A SARIF 2.1.0 log (OASIS), as code scanning services take it; its rules are the codes that occur."""
    found = list(diagnostics)
    rules = sorted({d.code for d in found})
    driver: dict[str, Any] = {
        "name": "orchestrator check",
        "rules": [{"id": code, "shortDescription": {"text": CATALOGUE.get(code, code)}} for code in rules],
    }
    if version:
        driver["version"] = version
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_as_result(d, rules.index(d.code)) for d in found]}],
    }
    return json.dumps(log, indent=2, ensure_ascii=False)


def _as_result(diagnostic: Diagnostic, rule: int) -> dict[str, Any]:
    region = {
        "startLine": diagnostic.line,
        "startColumn": diagnostic.column,
        "endColumn": diagnostic.column + max(1, diagnostic.length),
    }
    place = {"artifactLocation": {"uri": diagnostic.file.replace("\\", "/")}, "region": region}
    return {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": diagnostic.severity,
        "message": {"text": _whole_message(diagnostic)},
        "locations": [{"physicalLocation": place}],
    }


def _whole_message(diagnostic: Diagnostic) -> str:
    help = (f"help: {diagnostic.help}",) if diagnostic.help else ()
    return "\n".join((diagnostic.message, *diagnostic.notes, *help))


def render_github(diagnostics: Iterable[Diagnostic]) -> str:
    """Workflow commands of GitHub Actions (`::error file=…`), one line each, escaped as the runner unescapes them."""
    return "".join(_command(diagnostic) for diagnostic in diagnostics)


def _command(d: Diagnostic) -> str:
    place = f"file={_property(d.file)},line={d.line},col={d.column},title={d.code}"
    return f"::{d.severity} {place}::{_data(_whole_message(d))}\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
