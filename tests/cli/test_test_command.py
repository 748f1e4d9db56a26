"""`orchestrator test`: what it prints, and the status it ends with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import main

FLOW = """\
flowlang: 1
flows:
  main:
    on: invite
    do:
      - if: call.target.user == 'bob'
        then: [reply: 486]
        else:
          - reply: 404
"""
TESTS = """\
flowlang_test: 1
flows: a.flow.yaml
tests:
  - name: bob is busy
    when: [{invite: {from: alice@example.com, to: bob@example.com}}]
    expect: [reply: 486]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.flow.yaml").write_text(FLOW)
    (tmp_path / "a.test.yaml").write_text(TESTS)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["test", *arguments])
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capfd.readouterr())

    return run


def test_a_test_that_passes_is_one_line(run: Run) -> None:
    assert run("a.test.yaml") == (0, "ok     bob is busy\n1 passed, 0 failed\n", "")


def test_a_test_that_fails_shows_its_trace_and_ends_with_1(run: Run) -> None:
    Path("a.test.yaml").write_text(TESTS.replace("486", "603"))
    status, out, _ = run("a.test.yaml")
    assert status == 1
    assert out.startswith("FAILED bob is busy\n") and "reply 486" in out and out.endswith("0 passed, 1 failed\n")


def test_verbose_prints_the_trace_of_a_test_that_passes(run: Run) -> None:
    status, out, _ = run("a.test.yaml", "--verbose")
    assert status == 0 and "reply 486" in out


def test_cover_lists_the_lines_that_no_test_has_run(run: Run) -> None:
    status, out, _ = run("a.test.yaml", "--cover")
    assert status == 0
    assert "a.flow.yaml: 3 steps, 66 % tested, not tested: line 9\n" in out


def test_only_tests_whose_name_contains_the_text_run(run: Run) -> None:
    Path("a.test.yaml").write_text(
        TESTS + TESTS[TESTS.index("  - name") :].replace("bob", "carol").replace("486", "404")
    )
    assert run("a.test.yaml", "-k", "carol")[:2] == (0, "ok     carol is busy\n1 passed, 0 failed\n")


def test_no_test_at_all_ends_with_5(run: Run) -> None:
    assert run("a.test.yaml", "-k", "nobody")[:2] == (5, "0 passed, 0 failed\n")
    assert run()[0] == 5, "there is no folder tests"


def test_a_file_with_a_mistake_is_shown_with_its_place(run: Run) -> None:
    Path("a.test.yaml").write_text(TESTS.replace("invite:", "invit:"))
    status, out, err = run("a.test.yaml")
    assert status == 1 and "a.test.yaml:5:13: error" in out + err
