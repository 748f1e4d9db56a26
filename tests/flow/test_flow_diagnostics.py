"""Diagnostics as people and tools get them."""

from __future__ import annotations

import json

import pytest
from flowcheck import NAME, diagnose, steps

from orchestrator.errors import Diagnostic
from orchestrator.flow.language.catalogue import CATALOGUE
from orchestrator.flow.language.diagnostics import (
    LINE_LIMIT,
    in_order,
    render_github,
    render_json,
    render_sarif,
    render_text,
    summary,
)


def shown(text: str) -> str:
    return render_text(diagnose(text), {NAME: text})


def test_text_shows_line_caret_and_help() -> None:
    assert shown(steps("- relya: registered")) == (
        "test.flow.yaml:6:9: error E109: unknown action 'relya'\n"
        "   6 |       - relya: registered\n"
        "     |         ^^^^^\n"
        "     = help: did you mean 'relay'?\n"
    )


def test_notes_stand_before_help() -> None:
    assert shown(steps("- sleep: 5s\n- subscribe: registered\n  for: 5s\n  for: 6s\n  do: [stop]")) == (
        "test.flow.yaml:9:9: error E104: 'for' is written twice\n"
        "   9 |         for: 6s\n"
        "     |         ^^^\n"
        "     = first defined at line 8\n"
        "     = help: YAML would silently keep only the last one; rename or merge them\n"
    )


def test_what_is_underlined_may_be_a_part_of_the_value() -> None:
    assert shown(steps("- log: 'call from ${calle.from.user}'")).splitlines()[1:3] == [
        "   6 |       - log: 'call from ${calle.from.user}'",
        "     |                           ^^^^^",
    ]


def test_step_that_never_runs_is_underlined_as_a_whole() -> None:
    assert "         ^^^^^^^^^^\n" in shown(steps("- stop\n- log: never"))


def test_two_diagnostics_have_a_blank_line_between_them() -> None:
    text = steps("- reply: 4\n- sleep: 5")
    assert shown(text).count("\n\n") == 1


def test_missing_source_gives_the_message_alone() -> None:
    found = [Diagnostic("gone.yaml", 3, 1, "E003", "this cannot be read")]
    assert render_text(found, {}) == "gone.yaml:3:1: error E003: this cannot be read\n"


def test_control_characters_of_the_file_reach_no_terminal() -> None:
    found = [Diagnostic("f\x1b[2J", 1, 3, "E106", "'\x1b]0;x\x07' is bad", help="\x1b")]
    assert "\x1b" not in render_text(found, {"f\x1b[2J": "a\tb\x1b[31m"})


def test_long_lines_are_cut_around_the_caret() -> None:
    line = "x" * 500 + "HERE" + "y" * 500
    text = render_text([Diagnostic("f", 1, 501, "E106", "m", length=4)], {"f": line})
    _, source, caret, *_ = text.splitlines()
    assert len(source) <= LINE_LIMIT + 7
    assert source[caret.index("^") :].startswith("HERE")
    assert caret.count("^") == 4


def test_caret_never_runs_past_the_line() -> None:
    text = render_text([Diagnostic("f", 1, 3, "E106", "m", length=99)], {"f": "abcd"})
    assert text.splitlines()[2] == "     |   ^^"


def test_order_is_by_place_and_stable() -> None:
    found = [Diagnostic("b", 1, 1, "E1", ""), Diagnostic("a", 2, 1, "E2", ""), Diagnostic("a", 2, 1, "E3", "")]
    assert [d.code for d in in_order(found)] == ["E2", "E3", "E1"]


@pytest.mark.parametrize(
    ("severities", "text"),
    [
        ([], "no problems found"),
        (["error"], "1 error"),
        (["warning", "error", "error"], "2 errors, 1 warning"),
        (["warning", "warning"], "2 warnings"),
    ],
)
def test_summary(severities: list[str], text: str) -> None:
    assert summary(Diagnostic("f", 1, 1, "X", "", severity=s) for s in severities) == text  # type: ignore[arg-type]


def test_json_has_all_fields() -> None:
    found = json.loads(render_json(diagnose(steps("- sleep: 20"))))
    assert found == [
        {
            "file": NAME,
            "line": 6,
            "column": 16,
            "length": 2,
            "severity": "error",
            "code": "E106",
            "message": "'20' is not a duration",
            "help": "write 20s",
        }
    ]


def test_sarif_names_rules_and_regions() -> None:
    log = json.loads(render_sarif(diagnose(steps("- sleep: 20\n- relay: registered\n- reply: 480")), "1.2"))
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    driver = run["tool"]["driver"]
    assert [rule["id"] for rule in driver["rules"]] == ["E106", "W301"]
    assert driver["rules"][0]["shortDescription"]["text"] == CATALOGUE["E106"]
    assert driver["version"] == "1.2"
    first, second = run["results"]
    assert (first["ruleId"], first["ruleIndex"], first["level"]) == ("E106", 0, "error")
    assert second["level"] == "warning"
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": NAME}
    assert place["region"] == {"startLine": 6, "startColumn": 16, "endColumn": 18}
    assert first["message"]["text"] == "'20' is not a duration\nhelp: write 20s"


def test_github_annotations_are_one_escaped_line_each() -> None:
    found = [Diagnostic("a,b:c.yaml", 1, 2, "E106", "50% is\nbad", notes=("see\rthere",), help="no")]
    assert render_github(found) == (
        "::error file=a%2Cb%3Ac.yaml,line=1,col=2,title=E106::50%25 is%0Abad%0Asee%0Dthere%0Ahelp: no\n"
    )


def test_codes_are_of_the_catalogue_and_warnings_are_the_w() -> None:
    text = steps("- relay: registered\n- reply: 480\n- frob: x")
    for found in diagnose(text):
        assert found.code in CATALOGUE
        assert (found.severity == "warning") == found.code.startswith("W")
