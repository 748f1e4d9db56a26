"""The documentation is true: its flows load, its commands exist, its files are there."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest
from click import Context

from orchestrator.cli import cli
from orchestrator.flow.loader import load_program
from orchestrator.settings import read_settings
from orchestrator.testing.case_files import load_cases

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(f"{page.name}:{n}", found) for page in PAGES for n, found in enumerate(pattern.findall(page.read_text()))]


@pytest.mark.parametrize("name, text", [pytest.param(*block, id=block[0]) for block in blocks("yaml")])
def test_every_flow_shown_loads(name: str, text: str, tmp_path: Path) -> None:
    if text.startswith("flowlang_test:"):
        path = tmp_path / "shown.test.yaml"
        path.write_text(text.replace("../../flows", str(ROOT / "flows")))
        outcomes = [case.run() for case in load_cases(path)]
        assert outcomes
        assert [failure for outcome in outcomes for failure in outcome.failures] == []
        return
    if not text.startswith("flowlang:"):
        pytest.fail(f"{name}: a YAML block of the documentation is a whole file, so that it can be tried")
    path = tmp_path / "shown.flow.yaml"
    path.write_text(text)
    _, warnings = load_program([path])
    assert warnings == []


def test_configurations_shown_can_be_read() -> None:
    pattern = re.compile(r"^( *)```yml\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
    shown = [dedent(text) for page in PAGES for _, text in pattern.findall(page.read_text())]
    assert len(shown) >= 3
    for text in shown:
        read_settings("shown.yml", text, dict.fromkeys(re.findall(r"\{env: (\w+)\}", text), "said"))


def test_the_flow_of_the_readme_is_the_one_that_is_shipped() -> None:
    shown = blocks("yaml")[0][1]
    assert shown == (ROOT / "flows" / "push_wakeup.flow.yaml").read_text()


def test_every_command_named_exists() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"`orchestrator ([a-z]+)", text)) | set(
        re.findall(r"^orchestrator ([a-z]+)", text, re.MULTILINE)
    )
    assert {"run", "check", "replay", "demo"} <= named
    assert named <= set(cli.list_commands(Context(cli)))


def test_every_module_named_exists() -> None:
    """`core.requests` is orchestrator/core/requests.py; `flow/check/` and `core/settings.py` are there, too."""
    text = (ROOT / "docs" / "architecture.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    rooms = "|".join(sorted(path.parent.name for path in (ROOT / "orchestrator").glob("*/__init__.py")))
    modules = set(re.findall(rf"`((?:{rooms})(?:\.[a-z_]+)+)(?:\.[A-Z]\w*)?`", text))
    paths = set(re.findall(rf"`((?:{rooms})/[\w/]*(?:\.py)?)`", text))
    paths |= {name.replace(".", "/") + ".py" for name in modules if not name.endswith(".py")}
    assert {"core/requests.py", "sip/points.py", "core/switches/"} <= paths
    package = ROOT / "orchestrator"
    missing = [name for name in sorted(paths) if not ((package / name).exists() or (package / name[:-3]).is_dir())]
    assert missing == []


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {t for page in PAGES for t in re.findall(r"`make ([a-z]+)", page.read_text())}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [page.relative_to(ROOT) for folder in ("docs", "docs/flows") for page in (ROOT / folder).glob("*.md")]
    assert [str(page) for page in pages if f"({page})" not in readme] == []


def test_the_log_page_lists_every_event() -> None:
    """A log line is `event key=value`: the name is a word, and docs/log.md has it."""
    call = re.compile(
        r'\.(?:info|warning|error|exception|log|debug)\(\s*(?:[\w.()]+(?: if .* else "\w+")?, )?"([^"]+)"\s*\)'
        r'|_complain\([^\n]*, "([^"]+)"\)|\btell\(\s*"([^"]+)"(?! if)'
    )
    page = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")
    files = [ROOT / "orchestrator" / "app.py", *(ROOT / "orchestrator").glob("runtime/*.py")]
    files += (ROOT / "orchestrator").glob("core/*.py")
    events = {next(filter(None, found)) for file in files for found in call.findall(file.read_text(encoding="utf-8"))}
    assert len(events) > 30
    assert [event for event in sorted(events) if not re.fullmatch("[a-z_]+", event) or f"`{event}`" not in page] == []


def test_the_sockets_and_certificates_shown_are_a_configuration(tmp_path: Path) -> None:
    (shown,) = re.findall(
        r"^```\n(sip:\n.*?)^```", (ROOT / "docs" / "transports.md").read_text(), re.MULTILINE | re.DOTALL
    )
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).touch()
    settings = read_settings("shown.yml", shown.replace("tls/", f"{tmp_path}/"), {})
    assert [listen.transport for listen in settings.sip.listen] == ["udp", "tcp", "tls", "wss"]


def test_the_page_of_the_command_line_has_every_command_that_asks_a_server() -> None:
    """Those with sub-commands each of them, but for defaults, which are meant by the name of the group."""
    page = (ROOT / "docs" / "cli.md").read_text()
    context = Context(cli)
    missing = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        for path, found in [
            (name, command),
            *((f"{name} {sub}", c) for sub, c in getattr(command, "commands", {}).items()),
        ]:
            asks = any(option.name == "token" for option in found.params)
            default = path.endswith((" list", " installed"))
            if (
                asks
                and not default
                and f"orchestrator {path}" not in page
                and f"`{path.rpartition(' ')[2]}`" not in page
            ):
                missing.append(path)
    assert missing == []
