"""Files with mistakes and the messages each must give: our own, one per code, and those of the specification."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from orchestrator.errors import Diagnostic, InputError
from orchestrator.flow.language.catalogue import CATALOGUE
from orchestrator.flow.language.diagnostics import render_text
from orchestrator.flow.loader import Source, load_program, load_sources
from orchestrator.flow.tools.schema import flow_schema

OWN = sorted(Path(__file__).with_name("cases").glob("*.flow.yaml"))

SHARED = Path(__file__).parent / "specification"

ELSEWHERE = {"E003", "E119", "E120", "W308", "W310", "W311"}
"""Codes that no text alone can cause: see test_flow_loader.py, tests/settings/test_push_accounts.py."""


def lines(path: Path) -> list[str]:
    """What is said about one file, as `line:column: severity CODE: message`."""
    found: tuple[Diagnostic, ...] | list[Diagnostic]
    try:
        found = load_program([path])[1]
    except InputError as error:
        found = error.diagnostics
    return [str(diagnostic).removeprefix(f"{path}:") for diagnostic in found]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name.removesuffix(".flow.yaml"))
def test_own_case(path: Path) -> None:
    expected = path.with_name(path.name.replace(".flow.yaml", ".expected")).read_text(encoding="utf-8").splitlines()
    assert lines(path) == expected


def test_each_code_has_a_case_that_is_named_after_it() -> None:
    shown: dict[str, set[str]] = {}
    for path in OWN:
        shown[path.name] = {line.split()[2].rstrip(":") for line in lines(path)}
    assert set().union(*shown.values()) | ELSEWHERE == set(CATALOGUE)
    for name, codes in shown.items():
        assert name.split("_")[0].upper() in codes, name


def test_specified_mistakes() -> None:
    expected = (SHARED / "expected.txt").read_text(encoding="utf-8").splitlines()
    files = sorted((SHARED / "bad").glob("*.flow.yaml"))
    assert [f"{path.name}:{line}" for path in files for line in lines(path)] == expected
    assert len(files) == 11


def shown_in_specification() -> list[str]:
    """The blocks of the specification's section on messages, one diagnostic each, as printed."""
    text = (Path(__file__).parents[2] / "docs" / "flowlang.md").read_text(encoding="utf-8")
    section = text[text.index("## 8. ") : text.index("## 9. ")]
    blocks = section.split("```")[1::2]
    return [one.strip("\n") + "\n" for block in blocks for one in block.strip("\n").split("\n\n")]


@pytest.mark.parametrize("shown", shown_in_specification(), ids=lambda shown: shown.split(": ")[0])
def test_message_is_printed_as_the_specification_shows_it(shown: str) -> None:
    name = shown.split(":")[0]
    text = (SHARED / "bad" / name).read_text(encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_sources([Source(name, text)])
    printed = [render_text([diagnostic], {name: text}) for diagnostic in caught.value.diagnostics]
    assert shown in printed


@pytest.mark.parametrize("path", sorted((SHARED / "flows").glob("*.flow.yaml")), ids=lambda path: path.name)
def test_specified_flow_has_nothing_wrong(path: Path) -> None:
    program, warnings = load_program([path])
    assert warnings == []
    assert program.flows


def test_all_specified_flows_as_one_set_only_shadow_each_other() -> None:
    """Each is a complete example; together only the servers and flows they all declare collide."""
    with pytest.raises(InputError) as caught:
        load_program([SHARED / "flows"])
    assert {d.code for d in caught.value.diagnostics} == {"E104", "W305"}


def test_specified_flows_fit_the_schema() -> None:
    from schemacheck import as_editor_reads

    validator = jsonschema.Draft7Validator(flow_schema())
    for path in sorted((SHARED / "flows").glob("*.flow.yaml")):
        assert list(validator.iter_errors(as_editor_reads(path.read_text(encoding="utf-8")))) == [], path.name
