"""Files to a program: all of them or none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from flowcheck import diagnose, load, main_flow, said, steps

from orchestrator.errors import InputError
from orchestrator.events.event import Attribute, EventSpec
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.program import Place, Resources
from orchestrator.flow.language.registry import ACTIONS, Action, Actions, Field, Kind
from orchestrator.flow.language.yaml import MAX_OCTETS
from orchestrator.flow.loader import Source, executable, load_program, load_sources, read_sources

ONE = "flowlang: 1\nflows: {one: {on: invite, when: call.target.user == '1', do: [reply: 404]}}\n"
TWO = "flowlang: 1\ngateways: {telco: {uri: 'sip:t.example.net'}}\nflows: {two: {on: invite, do: [reply: 404]}}\n"


def write(folder: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / f"{name}.flow.yaml").write_bytes(data)


def refused(paths: list[Path]) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_program(paths)
    return [f"{Path(d.file).name}:{d.line} {d.code} {d.message}" for d in caught.value.diagnostics]


# --- files ----------------------------------------------------------------------------------------------------------


def test_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    write(tmp_path, b_second=TWO, a_first=ONE)
    (tmp_path / "notes.yaml").write_text("not a flow file")
    (tmp_path / "deeper").mkdir()
    write(tmp_path / "deeper", c=ONE)
    program, warnings = load_program([tmp_path])
    assert [flow.name for flow in program.flows] == ["one", "two"]
    assert warnings == []


def test_files_named_one_by_one_are_ordered_by_name_too(tmp_path: Path) -> None:
    write(tmp_path, a=ONE, b=TWO)
    program, _ = load_program([tmp_path / "b.flow.yaml", tmp_path / "a.flow.yaml"])
    assert [flow.name for flow in program.flows] == ["one", "two"]


def test_a_file_may_name_what_another_declares(tmp_path: Path) -> None:
    write(tmp_path, a=TWO, b="flowlang: 1\nflows: {sub: {do: [{originate: {to: '1', gateway: telco}}]}}\n")
    load_program([tmp_path])


def test_missing_file_and_empty_folder_are_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused([tmp_path / "gone.flow.yaml", tmp_path / "gone", empty]) == [
        "gone.flow.yaml:1 E003 this cannot be read: No such file or directory",
        "gone:1 E003 this cannot be read: No such file or directory",
    ]


def test_an_empty_folder_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "ring.yaml").write_text("flowlang: 1\n")
    program, (warning,) = load_program([tmp_path])
    assert not program.flows
    assert (warning.code, warning.severity, warning.file) == ("W308", "warning", str(tmp_path))
    assert warning.help == "flow files are named *.flow.yaml: rename ring.yaml to ring.flow.yaml"


def test_a_file_of_a_folder_that_cannot_be_read_is_named_itself(tmp_path: Path) -> None:
    write(tmp_path, a=ONE)
    (tmp_path / "b.flow.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c.flow.yaml").mkdir()
    assert refused([tmp_path]) == [
        "b.flow.yaml:1 E003 this cannot be read: No such file or directory",
        "c.flow.yaml:1 E003 this cannot be read: Is a directory",
    ]


def test_file_that_is_no_utf8_is_said(tmp_path: Path) -> None:
    write(tmp_path, a=b"flowlang: 1\ndescription: \xff\n")
    assert refused([tmp_path]) == ["a.flow.yaml:1 E003 this cannot be read: line 2 is not UTF-8"]


def test_file_that_is_too_large_is_said(tmp_path: Path) -> None:
    write(tmp_path, a=b"#" * (MAX_OCTETS + 1))
    assert "larger than 4 MiB" in refused([tmp_path])[0]


def test_name_defined_in_two_files_names_the_first(tmp_path: Path) -> None:
    write(tmp_path, a=TWO, b=TWO.replace("sip:", "sip:other."))
    with pytest.raises(InputError) as caught:
        load_program([tmp_path])
    found = [d for d in caught.value.diagnostics if d.code == "E104"]
    assert [(Path(d.file).name, d.message) for d in found] == [
        ("b.flow.yaml", "'telco' is defined twice under gateways, and differently"),
        ("b.flow.yaml", "'two' is defined twice under flows"),
    ]
    assert found[0].notes == (f"first at {tmp_path / 'a.flow.yaml'}:2:12",)


def test_files_may_say_the_same_of_a_resource(tmp_path: Path) -> None:
    """So that each can be checked, tested and passed on by itself."""
    shared = """flowlang: 1
gateways: {telco: {uri: 'sip:gw.example.net', password: {env: TELCO}}}
groups: {sales: [101, 0102]}
secrets: [KEY]
const: {limit: 5}
events: {pickup: {picker: digits}}
"""
    write(tmp_path, a=shared + "flows: {one: {do: [stop]}}", b=shared + "flows: {two: {do: [log: '${const.limit}']}}")
    program, _ = load_program([tmp_path])
    assert len(program.flows) == 2 and program.resources.groups["sales"] == ("101", "0102")


@pytest.mark.parametrize("other", ["5", "'101'", "[101]"])
def test_a_quoted_number_is_not_the_same(tmp_path: Path, other: str) -> None:
    write(tmp_path, a="flowlang: 1\nconst: {limit: 101}", b=f"flowlang: 1\nconst: {{limit: {other}}}")
    assert "E104 'limit' is defined twice under const, and differently" in refused([tmp_path])[0]


def test_one_bad_file_refuses_the_whole_set_with_all_mistakes(tmp_path: Path) -> None:
    write(tmp_path, a=ONE.replace("404", "4"), b=TWO.replace("404", "5"))
    assert [line[:16] for line in refused([tmp_path])] == ["a.flow.yaml:2 E1", "b.flow.yaml:3 E1"]


def test_broken_yaml_hides_what_would_only_follow_from_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="flowlang: 1\ngateways: {telco: ${x}}\n",
        b="flowlang: 1\nflows: {f: {do: [{relay: {gateways: telco}}]}}",
    )
    assert [line.split()[1] for line in refused([tmp_path])] == ["E001"]


def test_read_sources_gives_text_for_the_printer(tmp_path: Path) -> None:
    write(tmp_path, a=b"\xef\xbb\xbf" + ONE.encode())
    (source,) = read_sources([tmp_path])
    assert source == Source(str(tmp_path / "a.flow.yaml"), ONE)


# --- program --------------------------------------------------------------------------------------------------------


def test_digest_changes_with_text_and_name_but_not_with_the_folder() -> None:
    def digest(name: str, text: str) -> str:
        return load_sources([Source(name, text)])[0].hash

    base = digest("x/a.flow.yaml", ONE)
    assert len(base) == 12
    assert base == digest("y/a.flow.yaml", ONE)
    assert base != digest("x/b.flow.yaml", ONE)
    assert base != digest("x/a.flow.yaml", ONE + "\n")


def test_warnings_come_back_beside_the_program() -> None:
    program, warnings = load_sources([Source("w", steps("- relay: registered\n- reply: 480"))])
    assert [d.code for d in warnings] == ["W301"]
    assert program.flow("main").do[1].place == Place("w", 7, 9)


def test_flow_carries_its_head() -> None:
    flow = load(
        """
        flowlang: 1
        events: {due: {number: digits}}
        flows:
          main:
            description: Reminders.
            on: {event: due, where: {number: '00*'}}
            mode: queued
            max: 5
            key: event.number
            vars: {n: 0, who: x}
            do: [log: x]
            on_error: [log: '${error.type}']
        """
    ).flow("main")
    assert (flow.trigger.kind, flow.trigger.event, flow.mode, flow.max) == ("event", "due", "queued", 5)
    assert flow.trigger.where is not None and flow.trigger.where.rest is not None
    assert flow.trigger.where.rest.evaluate({"event": {"number": "0049"}}) is True
    assert flow.trigger.where.rest.evaluate({"event": {"number": "49"}}) is False
    assert flow.key is not None and flow.key.evaluate({"event": {"number": "1"}}) == "1"
    assert {name: given.evaluate({}) for name, given in flow.vars.items()} == {"n": 0, "who": "x"}
    assert flow.on_error is not None and len(flow.on_error) == 1
    assert (flow.on_end, flow.when, flow.description) == (None, None, "Reminders.")


@pytest.mark.parametrize(
    ("on", "kind", "every"),
    [("start", "start", 0.0), ("{every: 90s}", "every", 90.0), ("{event: registered}", "event", 0)],
)
def test_triggers(on: str, kind: str, every: float) -> None:
    trigger = main_flow("- log: x", on=on).trigger
    assert (trigger.kind, trigger.every) == (kind, every)


def test_sub_flow_keeps_words_of_its_parameters() -> None:
    flow = load(
        "flowlang: 1\nflows: {s: {params: {box: text, n: optional number}, returns: text, do: [return: x]}}"
    ).flow("s")
    assert flow.trigger.kind == "call"
    assert flow.params == {"box": "text", "n": "optional number"}


def test_events_of_the_program_are_the_built_in_and_the_custom_ones() -> None:
    program = load("flowlang: 1\nevents: {due: {number: digits}}\nflows: {f: {on: due, do: [log: x]}}")
    assert set(program.events) == {spec.name for spec in BUILTIN_EVENTS} | {"due"}
    assert program.events["due"].scope == "global"
    assert "due" not in {spec.name for spec in BUILTIN_EVENTS}


def test_resources_of_the_configuration_may_be_named() -> None:
    text = steps("- relay: {gateways: telco, via: fs1}")
    known = Resources(gateways={"telco": {"uri": "sip:t"}}, freeswitch={"fs1": {"host": "x"}})
    assert [line.split()[1] for line in said(text)] == ["E118", "E118"]
    assert said(text, known) == []
    assert load(text, known).resources.gateways == {"telco": {"uri": "sip:t"}}


def test_one_set_leaves_nothing_for_the_next() -> None:
    load("flowlang: 1\nevents: {due: {n: digits}}\nflows: {f: {on: due, do: [log: x]}}")
    assert said("flowlang: 1\nflows: {f: {on: due, do: [log: x]}}") == ["2:17 E112 unknown trigger 'due'"]


# --- packages -------------------------------------------------------------------------------------------------------


def packaged() -> Actions:
    actions = Actions()
    for action in ACTIONS:
        actions.add(action)
    fields = (Field("tenant", Kind.TEXT, "Tenant.", required=True), Field("do", Kind.STEPS, "Steps."))
    actions.add(Action("cnam", "Look up a name.", short="tenant", fields=fields, result="cnam result"))
    return actions


def test_actions_and_events_of_packages_are_checked_like_ours() -> None:
    event = EventSpec("presence", "Somebody is there.", "global", {"who": Attribute("who", "text")})
    text = steps(
        "- cnam: {tenant: x, do: [log: y]}\n  as: name\n- log: '${name.anything}'\n- wait: presence\n  where: {whom: x}"
    )
    with pytest.raises(InputError) as caught:
        load_sources([Source("p", text)], actions=packaged(), events=(*BUILTIN_EVENTS, event))
    assert [d.message for d in caught.value.diagnostics] == ["unknown attribute of event 'presence': 'whom'"]


def test_action_without_a_handler_can_be_checked_but_not_run() -> None:
    text = steps("- if: call.answered\n  then: [cnam: acme]\n- reply: 404")
    program, _ = load_sources([Source("p", text)], actions=packaged())
    (found,) = executable(program)
    assert str(found) == "p:7:16: error E119: cnam: cannot be run by this version"
    assert found.length == 4


def test_a_key_that_is_not_built_yet_is_refused_and_not_ignored() -> None:
    actions = packaged()
    later = Field("colour", Kind.TEXT, "Not built yet.", planned=True)
    actions.add(Action("paint", "Paint.", fields=(later,))).performs(lambda task, step: iter(()))
    program, _ = load_sources([Source("p", steps("- paint: {colour: red}\n- reply: 404"))], actions=actions)
    (found,) = executable(program)
    assert str(found) == "p:6:9: error E119: paint: colour cannot be used by this version"


def test_what_has_handlers_is_executable() -> None:
    program = load(steps("- log: x\n- reply: 404"))
    assert executable(program) == []
    without = [replace(step, action=None, args={"then": ()}) for step in program.flow("main").do]
    assert executable(replace(program, flows=(replace(program.flow("main"), do=tuple(without)),))) == []


def test_importing_the_loader_loads_no_gevent() -> None:
    script = "import sys, orchestrator.flow.loader, orchestrator.flow.tools.schema; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_unknown_section_is_an_error() -> None:
    (found,) = diagnose("flowlang: 1\nflow: {}\n")
    assert (found.code, found.help) == ("E101", "did you mean 'flows'?")
