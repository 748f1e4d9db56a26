"""What an editor offers: the real yaml-language-server with our schema (FLOWLANG §7).

It is installed from npm by the lock file beside this one, once, into pytest's cache; without Node or a registry these
tests are skipped and say so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from language_server import LanguageServer
from npm_packages import npm_packages

from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.registry import ACTIONS
from orchestrator.flow.language.sections import COMMON_FIELDS
from orchestrator.flow.tools.schema import SCHEMA_ID, flow_schema

pytestmark = pytest.mark.editor

HERE = Path(__file__).parent
FLOWS = sorted((HERE.parents[1] / "flows").glob("*.flow.yaml"))

ANYWHERE = [field.name for field in COMMON_FIELDS]

HEAD = "flowlang: 1\nflows:\n  main:\n    on: invite\n    do:\n"


@pytest.fixture(scope="session")
def script(request: pytest.FixtureRequest) -> Path:
    """The server's main file."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed: what editors make of the schema is not tested")
    folder = npm_packages(HERE, request, "the language server", seconds=50)
    return folder / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"


@pytest.fixture(scope="session")
def server(script: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    folder = tmp_path_factory.mktemp("workspace")
    schema = folder / SCHEMA_ID
    schema.write_text(json.dumps(flow_schema()))
    with LanguageServer(script, schema, folder) as server:
        yield server


def step(text: str) -> str:
    """A flow with this step; the mark `|` is where the cursor stands."""
    return HEAD + "\n".join("      " + line for line in text.splitlines())


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["- log: x\n- |", "- log: x\n- r|", "- |\n- log: y"])
def test_a_new_step_offers_the_actions_and_what_any_step_may_have(server: LanguageServer, text: str) -> None:
    offered = server.completions(step(text))
    assert offered == [*(action.name for action in ACTIONS), "then", "else", *ANYWHERE]


@pytest.mark.parametrize("action", ["subscribe", "wait"])
def test_events(server: LanguageServer, action: str) -> None:
    offered = server.completions(step(f"- {action}: |"))
    assert {event.name for event in BUILTIN_EVENTS} <= set(offered)
    assert "relay" not in offered


def test_a_trigger_may_be_a_request_or_an_event(server: LanguageServer) -> None:
    offered = server.completions(HEAD.replace("on: invite\n    do:\n", "on: |"))
    assert {"invite", "register", "start", "registered", "dtmf"} <= set(offered)


@pytest.mark.parametrize("name", ["subscribe", "wait", "relay", "call", "switch", "try", "foreach", "log"])
def test_beside_an_action_stand_its_keys_and_no_others(server: LanguageServer, name: str) -> None:
    value = {"subscribe": " registered", "wait": " dtmf"}.get(name, " x")
    offered = server.completions(step(f"- {name}:{value}\n  |"))
    assert offered == [*(field.name for field in ACTIONS[name].beside), *ANYWHERE]


@pytest.mark.parametrize("event", [spec for spec in BUILTIN_EVENTS if spec.name != "fs"], ids=lambda spec: spec.name)
@pytest.mark.parametrize("action", ["subscribe", "wait"])
def test_attributes_are_those_of_the_event(server: LanguageServer, action: str, event: object) -> None:
    spec = next(spec for spec in BUILTIN_EVENTS if spec is event)
    offered = server.completions(step(f"- {action}: {spec.name}\n  where:\n    |"))
    assert set(offered) == set(spec.attributes)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("- subscribe: dtmf\n  where:\n    leg: |", {"caller", "callee"}),
        ("- wait: fax_tone\n  where:\n    tone: |", {"cng", "ced"}),
        ("- subscribe: dtmf\n  run: |", {"queue", "parallel", "drop", "restart"}),
        ("- relay:\n    mode: |", {"parallel", "serial", "by_q"}),
        ("- detect:\n    what: |", {"fax", "beep"}),
        ("- relay: |", {"registered", "original"}),
    ],
)
def test_values_of_choices(server: LanguageServer, text: str, wanted: set[str]) -> None:
    assert wanted <= set(server.completions(step(text)))


def test_keys_under_relay_and_its_outcomes(server: LanguageServer) -> None:
    offered = server.completions(step("- relay:\n    |"))
    assert {field.name for field in ACTIONS["relay"].fields} <= set(offered)
    outcomes = server.completions(step("- relay: registered\n  on:\n    |"))
    assert {"answered", "busy", "no_answer", "rejected", "unavailable", "failed", "cancelled", "else"} <= set(outcomes)


def test_attributes_in_a_branch_of_first_of(server: LanguageServer) -> None:
    offered = server.completions(step("- first_of:\n    - wait: beep\n      where:\n        |"))
    assert set(offered) == {"frequency", "ms", "leg"}


def test_sections_and_keys_of_a_flow(server: LanguageServer) -> None:
    assert {"flows", "events", "freeswitch", "gateways", "secrets"} <= set(server.completions("flowlang: 1\n|"))
    offered = server.completions("flowlang: 1\nflows:\n  main:\n    |")
    assert {"on", "when", "vars", "do", "on_error", "on_end"} <= set(offered)


# --- hover ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- rel|ay: registered", ACTIONS["relay"].doc),
        ("- inj|ect: ${event.uri}", ACTIONS["inject"].doc),
        ("- subscribe: registered\n  uniq|ue_by: event.contact", "once for each value"),
        ("- relay: {to: registered, keep_|open: 20s}", "late branches"),
    ],
)
def test_hover_explains(server: LanguageServer, text: str, said: str) -> None:
    shown = server.hover(step(text)).replace("\\", "").replace("&nbsp;", " ")
    assert " ".join(said.split()) in " ".join(shown.split())


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FLOWS, ids=lambda file: file.stem)
def test_the_shipped_flows_are_right(server: LanguageServer, file: Path) -> None:
    assert server.diagnostics(file.read_text()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- relya: registered", "Value is not accepted."),
        ("- subscribe: registered\n  where: {aorr: x}\n  do: [stop]", "Property aorr is not allowed."),
        ("- wait: dtmf\n  where: {leg: calee}", 'Value is not accepted. Valid values: "caller", "callee".'),
        ("- relay: {to: registered, rang: 5s}", "Property rang is not allowed."),
    ],
)
def test_mistakes_are_named_once(server: LanguageServer, text: str, said: str) -> None:
    found = server.diagnostics(step(text))
    assert any(said in message for message in found), found
    assert not any("multiple schemas" in message for message in found)
