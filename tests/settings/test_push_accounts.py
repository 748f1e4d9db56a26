"""`orchestrator check` tells what push services say of their keys and certificates, at the place of the entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from orchestrator.cli import cli
from orchestrator.errors import OrchestratorError
from orchestrator.flow.loader import load_program
from orchestrator.packages.push_service import PushServiceKind
from orchestrator.settings import push_kinds
from orchestrator.settings.reader import read_settings
from orchestrator.sip.push import Push, Pushed
from orchestrator.site import check_push, check_site, read_site


class AcmeSettings(BaseModel):
    key: str = ""


class Acme:
    """A push service whose key is a word that says what is wrong."""

    def __init__(self, settings: Any) -> None:
        if settings.key == "uninstalled":
            raise OrchestratorError("acme needs libacme, which is not installed")
        self._key = settings.key

    def check(self) -> Sequence[str]:
        if self._key == "bug":
            raise ZeroDivisionError("oops")
        return [] if self._key == "good" else [f"{self._key}: no such file", "the certificate expired on 2026-01-01"]

    def start(self) -> None: ...

    def server_of(self, push: Push) -> str:
        return ""

    def send(self, push: Push) -> Pushed:
        raise NotImplementedError

    def stop(self) -> None: ...


@pytest.fixture(autouse=True)
def acme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(push_kinds.KINDS, "acme", PushServiceKind("acme", "For tests.", Acme, AcmeSettings))


TEXT = """\
flows: [flows]
push:
  services:
    acme: {key: good}
    phones:
      type: acme
      key: lost.p8
"""


def test_each_complaint_has_the_place_of_its_entry() -> None:
    found = check_push(read_settings("a.yml", TEXT, {}))
    assert [str(diagnostic) for diagnostic in found] == [
        "a.yml:7:12: error E120: push service 'phones': lost.p8: no such file",
        "a.yml:7:12: error E120: push service 'phones': the certificate expired on 2026-01-01",
    ]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("uninstalled", "push service 'phones': acme needs libacme, which is not installed"),
        ("bug", "push service 'phones': its check fails: ZeroDivisionError: oops"),
    ],
)
def test_a_service_that_cannot_be_asked_is_a_complaint(key: str, says: str) -> None:
    [found] = check_push(read_settings("a.yml", TEXT.replace("lost.p8", key), {}))
    assert found.message == says


@pytest.mark.parametrize(
    "step", ["relay: {to: registered, wake: 20s}", "relay: {aor: b@example.com, wake: 20s}", "push: b@example.com"]
)
def test_a_flow_that_wakes_phones_needs_a_push_service(step: str, tmp_path: Path) -> None:
    flow = tmp_path / "a.flow.yaml"
    flow.write_text(
        f"flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - {step}\n"
        f"  texts:\n    on: message\n    do:\n      - {step}\n"
    )
    [found], _ = check_site(read_settings("a.yml", "", {}), {}, [flow])
    place = (step.index("wake") if "wake" in step else 0) + 9
    assert str(found) == f"{flow}:6:{place}: warning W310: no phone is woken: no push service is configured"
    assert found.help == "name one under  push: services:  of the configuration (docs/push.md)"
    assert check_site(read_settings("a.yml", TEXT, {}), {}, [flow])[0] == []


@pytest.mark.parametrize(
    ("name", "help"),
    [("acmee", "did you mean 'acme'?"), ("phoness", "did you mean 'phones'?"), ("xyz", "known: acme, phones")],
)
def test_push_services_are_known_by_name(name: str, help: str, tmp_path: Path) -> None:
    flow = tmp_path / "a.flow.yaml"
    step = f"push: {{to: bob@example.com, services: {{{name}: {{alert: x}}, phones: {{}}}}}}"
    flow.write_text(f"flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - {step}\n")
    [found], _ = check_site(read_settings("a.yml", TEXT, {}), {}, [flow])
    assert (found.code, found.message, found.help) == ("E118", f"unknown push service {name!r}", help)
    assert load_program([flow])[1] == [], "without a configuration any may be named"


def test_what_a_step_says_to_a_push_service_is_a_map(tmp_path: Path) -> None:
    flow = tmp_path / "a.flow.yaml"
    step = "push: {to: bob@example.com, services: {acme: loud}}"
    flow.write_text(f"flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n      - {step}\n")
    [found], _ = check_site(read_settings("a.yml", TEXT, {}), {}, [flow])
    assert (found.code, found.message) == ("E103", "acme: takes a map here")


def test_the_command_fails_and_a_server_starts_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "a.flow.yaml").write_text("flowlang: 1\n")
    (tmp_path / "a.yml").write_text(TEXT)
    ended = CliRunner().invoke(cli, ["check", "-c", "a.yml"], standalone_mode=False)
    assert ended.return_value == 1 and "a.yml:7:12: error E120: push service 'phones': lost.p8" in ended.output
    assert "   7 |       key: lost.p8" in ended.output
    assert read_site(read_settings("a.yml", TEXT, {}), {}).warnings == []
    (tmp_path / "a.yml").write_text(TEXT.replace("lost.p8", "good"))
    assert CliRunner().invoke(cli, ["check", "-c", "a.yml"], standalone_mode=False).return_value == 0
