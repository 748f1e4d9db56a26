"""The command line: what it prints, where, and the status it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest

from orchestrator import BUILD, __version__
from orchestrator.cli import main
from orchestrator.events.registry import BUILTIN_EVENTS

REPOSITORY = Path(__file__).parents[2]

GOOD = """\
flowlang: 1
flows:
  main:
    on: invite
    do:
      - relay: registered
"""
TYPO = GOOD.replace("relay: registered", "relya: registered")
WARNED = GOOD + "  other:\n    on: invite\n    do: [reply: 404]\n"


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """`run('check', 'x')` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ended(ended.value.code, out, err)

    return run


class Run:
    """The type of the fixture `run`."""

    def __call__(self, *arguments: str) -> Ended: ...  # type: ignore[empty-body]


def run_apart(*arguments: str) -> Ended:
    """The same in a process of its own: `run` patches the standard library."""
    code = "import sys; from orchestrator.cli import main; main(sys.argv[1:])"
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


# --- the whole --------------------------------------------------------------------------------------------------------


def test_help_lists_every_command(run: Run) -> None:
    ended = run("--help")
    assert ended.status == 0
    for name in ("check", "events", "run", "schema"):
        assert f"\n  {name} " in ended.out


@pytest.mark.parametrize("name", ["check", "events", "run", "schema"])
def test_every_command_explains_itself(run: Run, name: str) -> None:
    ended = run(name, "-h")
    assert ended.status == 0 and f"Usage: orchestrator {name}" in ended.out


def test_version(run: Run) -> None:
    assert run("--version") == Ended(0, f"orchestrator, version {__version__} ({BUILD})\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chekc"], "No such command 'chekc'"),
        (["_output"], "No such command '_output'"),
        (["check", "--format", "xml"], "Invalid value for '--format'"),
        (["run", "--port", "5060"], "No such option '--port'"),
        (["events", "registerd"], "unknown event 'registerd'; did you mean 'registered'?"),
    ],
)
def test_a_wrong_command_line_is_told_so_and_ends_with_2(run: Run, arguments: list[str], message: str) -> None:
    ended = run(*arguments)
    assert ended.status == 2 and ended.out == ""
    assert message in ended.err.replace(": --port", " '--port'")


def test_the_console_script_is_this() -> None:
    script = Path(sys.executable).with_name("orchestrator")
    ended = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == f"orchestrator, version {__version__} ({BUILD})\n"


def test_a_reader_who_has_seen_enough_is_no_traceback() -> None:
    code = "from orchestrator.cli import main; main(['events'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stderr is not None
        writer.stdout.close()
        assert writer.stderr.read() == b""


def test_checking_does_not_load_what_serving_needs() -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli import main\n"
        "try:\n    main(['check', 'flows'])\n"
        "except SystemExit:\n    pass\n"
        "print(sorted({'gevent', 'greenswitch', 'urllib3', 'falcon'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=REPOSITORY
    )
    *found, loaded = ended.stdout.splitlines()
    assert loaded == "[]", ended.stderr
    assert [line for line in found if " warning " in line or " error " in line] == [
        "flows/push_wakeup.flow.yaml:12:33: warning W310: no phone is woken: no push service is configured"
    ]


# --- check ------------------------------------------------------------------------------------------------------------


def test_flows_without_a_fault(run: Run) -> None:
    assert run("check", write("main.flow.yaml", GOOD)) == Ended(0, "", "no problems found\n")


def test_a_fault_has_place_reason_and_cure(run: Run) -> None:
    ended = run("check", write("main.flow.yaml", TYPO))
    assert ended.status == 1
    assert ended.out.splitlines() == [
        "main.flow.yaml:6:9: error E109: unknown action 'relya'",
        "   6 |       - relya: registered",
        "     |         ^^^^^",
        "     = help: did you mean 'relay'?",
    ]
    assert ended.err == "1 error\n"


def test_a_warning_alone_is_no_failure(run: Run) -> None:
    ended = run("check", write("main.flow.yaml", WARNED))
    assert (ended.status, ended.err) == (0, "1 warning\n")
    assert "warning W305" in ended.out


def test_without_paths_the_flows_of_the_configuration_are_checked(run: Run) -> None:
    write("flows/main.flow.yaml", TYPO)
    assert run("check").status == 1
    write("pbx/main.flow.yaml", GOOD)
    write("config/orchestrator.yml", "flows: [pbx]")
    assert run("check").status == 0
    write("other.yml", "flows: [flows]")
    assert run("check", "-c", "other.yml").status == 1


def test_what_the_configuration_declares_may_be_named(run: Run) -> None:
    write("flows/main.flow.yaml", GOOD.replace("registered", "{to: registered, via: fs1}"))
    assert "error E118" in run("check").out
    write("config/orchestrator.yml", "freeswitch: {fs1: {host: 127.0.0.1}}")
    assert run("check") == Ended(0, "", "no problems found\n")


def test_json(run: Run) -> None:
    ended = run("check", "--format", "json", write("main.flow.yaml", TYPO))
    (found,) = json.loads(ended.out)
    assert (found["code"], found["line"], found["column"], found["length"]) == ("E109", 6, 9, 5)
    assert (ended.status, ended.err) == (1, "")


def test_sarif(run: Run) -> None:
    log = json.loads(run("check", "--format", "sarif", write("main.flow.yaml", WARNED)).out)
    (result,) = log["runs"][0]["results"]
    assert (log["version"], result["ruleId"], result["level"]) == ("2.1.0", "W305", "warning")
    assert log["runs"][0]["tool"]["driver"]["version"] == __version__


def test_github(run: Run) -> None:
    ended = run("check", "--format", "github", write("main.flow.yaml", TYPO))
    assert ended.out.startswith("::error file=main.flow.yaml,line=6,col=9,title=E109::unknown action 'relya'")


def test_a_file_that_is_not_there(run: Run) -> None:
    ended = run("check", "none.flow.yaml")
    assert ended.status == 1
    assert ended.out == "none.flow.yaml:1:1: error E003: this cannot be read: No such file or directory\n"


def test_a_wrong_configuration_is_shown_with_its_line(run: Run) -> None:
    write("config/orchestrator.yml", "sip:\n  lisen: x\n")
    for ended in (run("check"), run_apart("run")):
        assert (ended.status, ended.out) == (1, "")
        assert ended.err.splitlines() == [
            "config/orchestrator.yml:2:3: error E101: unknown key 'lisen'",
            "   2 |   lisen: x",
            "     |   ^^^^^",
            "     = help: did you mean 'listen'?",
        ]


def test_a_configuration_that_is_not_there(run: Run) -> None:
    ended = run("check", "-c", "none.yml")
    assert ended == Ended(1, "", "none.yml:1:1: error E003: cannot read none.yml: No such file or directory\n")


# --- events -----------------------------------------------------------------------------------------------------------


def test_all_events_with_their_attributes(run: Run) -> None:
    out = run("events").out
    for spec in BUILTIN_EVENTS:
        assert f"{spec.name}  (of " in out and spec.doc in out
    assert "\n    source  text             DTMF-Source (RTP, INBAND_AUDIO …), INFO for a SIP INFO\n" in out
    assert "\n    leg     caller/callee    the side whose INVITE" in out
    assert "\n  from: FreeSWITCH switch_channel.c:678; not fired for sensitive DTMF\n" in out


def test_some_events(run: Run) -> None:
    out = run("events", "hangup", "beep").out
    assert out.index("hangup  (of this call)") < out.index("beep  (of this call)")
    assert "registered" not in out
    assert "  from FreeSWITCH: CUSTOM avmd::beep\n" in out


def test_events_for_tools(run: Run) -> None:
    (dtmf,) = json.loads(run("events", "--format", "json", "dtmf").out)
    assert dtmf["scope"] == "call" and dtmf["esl"] == ["DTMF"]
    leg = dtmf["attributes"]["leg"]
    assert (leg["type"], leg["values"], leg["optional"]) == ("text", ["caller", "callee"], False)
    assert leg["from"].startswith("the side whose INVITE")
    assert len(json.loads(run("events", "--format", "json").out)) == len(BUILTIN_EVENTS)


# --- schema -----------------------------------------------------------------------------------------------------------


def test_the_schema_knows_the_language(run: Run) -> None:
    schema = json.loads(run("schema").out)
    jsonschema.Draft7Validator.check_schema(schema)
    assert {"flowlang", "flows", "events", "freeswitch"} <= set(schema["properties"])


def test_the_schema_goes_to_a_file(run: Run) -> None:
    assert run("schema", "-o", "flowlang-1.schema.json") == Ended(0, "", "")
    assert json.loads(Path("flowlang-1.schema.json").read_text())["title"] == "FlowLang"
    assert run("schema", "-o", "missing/x.json").status in (1, 2)


def test_check_lists_what_is_unsafe(run: Run, tmp_path: Path) -> None:
    """And without unsafe() the error says what it would be, how else to write it, and that unsafe() is there."""
    file = tmp_path / "a.flow.yaml"
    file.write_text(GOOD.replace("registered", "'sip:a@${call.from.host}'"))
    refused = run("check", str(file))
    assert refused.status == 1
    for said in ("a.flow.yaml:6:", "E212", "'call.from.host' comes from outside", "the host of a SIP URI", "unsafe("):
        assert said in refused.out
    file.write_text(GOOD.replace("registered", "'sip:a@${unsafe(call.from.host)}'"))
    plain, listed = run("check", str(file)), run("check", "--unsafe", str(file))
    assert (plain.status, listed.status) == (0, 0)
    assert "unsafe:" not in plain.out + plain.err
    [line] = [line for line in listed.out.splitlines() if "unsafe:" in line]
    assert "a.flow.yaml:6:" in line and line.endswith("unsafe: sip:a@${unsafe(call.from.host)}")
    in_json = run("check", "--unsafe", "--format", "json", str(file))
    assert json.loads(in_json.out) is not None
    assert "unsafe: sip:a@" in in_json.err
