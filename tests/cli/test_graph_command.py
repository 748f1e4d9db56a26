"""`orchestrator graph`: which flow, in which form, to where."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestrator.cli import main

FLOW = """\
flowlang: 1
flows:
  main:
    on: invite
    do:
      - relay: registered
"""


class Ended:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "main.flow.yaml").write_text(FLOW)
    return tmp_path


def graph(capfd: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    with pytest.raises(SystemExit) as ended:
        main(["graph", *arguments])
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, *capfd.readouterr())


def test_mermaid_of_a_flow_of_the_configuration(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = graph(capfd, "main")
    assert ended.status == 0
    assert ended.out.splitlines()[:3] == [
        "flowchart TD",
        '    n1(["main: on invite"])',
        '    n2[/"relay: registered"/]',
    ]


def test_svg_to_a_file(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert graph(capfd, "main", "--format", "svg", "-o", "main.svg").out == ""
    assert ElementTree.parse(folder / "main.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_flows_from_elsewhere(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = folder / "other.flow.yaml"
    other.write_text(FLOW.replace("main", "other"))
    assert graph(capfd, "other", "--flows", str(other)).status == 0
    assert graph(capfd, "main", "--flows", str(other)).status == 2


@pytest.mark.parametrize(("name", "help"), [("mian", "did you mean 'main'?"), ("xyz", "known: main")])
def test_a_flow_that_is_not_there(folder: Path, capfd: pytest.CaptureFixture[str], name: str, help: str) -> None:
    ended = graph(capfd, name)
    assert (ended.status, ended.out) == (2, "")
    assert f"there is no flow {name!r}; {help}" in ended.err


def test_flows_with_a_mistake_are_not_drawn(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "flows" / "main.flow.yaml").write_text(FLOW.replace("relay", "relya"))
    ended = graph(capfd, "main")
    assert ended.status == 1 and "error E109" in ended.err
