"""The small parts of the check by themselves: ways that fork and meet, literals, values, places, the promised
context.
"""

from __future__ import annotations

import pytest

from orchestrator.core import request_view
from orchestrator.core.calls import views
from orchestrator.events.registry import BUILTIN_EVENTS, custom_event
from orchestrator.flow.check.call_state import StateChecker
from orchestrator.flow.check.paths import Path
from orchestrator.flow.expr import (
    ANY,
    BOOL,
    DIGITS,
    DURATION,
    NULL,
    NUMBER,
    TEXT,
    ExprError,
    Scope,
    Type,
    compile_expression,
    compile_template,
    optional,
    record,
)
from orchestrator.flow.language.context import CALL, REQUEST, RESERVED, RESULTS, ROOTS, event_type
from orchestrator.flow.language.evaluables import AsList, Constant, ContactTest, ListValue, MapValue, constant_of
from orchestrator.flow.language.literals import number, typed
from orchestrator.flow.language.program import Place
from orchestrator.flow.language.registry import ACTIONS
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.yaml import Entries, Scalar, parse

# --- ways -----------------------------------------------------------------------------------------------------------


def way(alive: bool = True, known: frozenset[tuple[str, ...]] = frozenset(), **names: Type) -> Path:
    return Path(Scope(names, known=known), alive)


def joined(*ways: Path) -> Path:
    path = way()
    path.join(*ways)
    return path


def test_name_of_all_ways_keeps_its_type() -> None:
    assert joined(way(a=TEXT), way(a=TEXT)).scope.names == {"a": TEXT}


def test_name_of_some_ways_may_be_missing() -> None:
    assert joined(way(a=TEXT), way()).scope.names == {"a": optional(TEXT)}
    assert joined(way(), way(a=TEXT), way(a=TEXT)).scope.names == {"a": optional(TEXT)}


def test_dead_ways_take_no_part() -> None:
    assert joined(way(a=TEXT), way(alive=False)).scope.names == {"a": TEXT}
    assert not joined(way(alive=False), way(alive=False)).alive


def test_types_that_differ_become_what_holds_both() -> None:
    assert joined(way(a=TEXT), way(a=DIGITS)).scope.names == {"a": TEXT}
    assert joined(way(a=TEXT), way(a=optional(TEXT))).scope.names == {"a": optional(TEXT)}
    assert joined(way(a=TEXT), way(a=BOOL)).scope.names == {"a": ANY}


def test_facts_hold_behind_a_meeting_when_all_ways_know_them() -> None:
    fact = frozenset({("call", "user")})
    assert joined(way(known=fact), way(known=fact)).scope.known == fact
    assert joined(way(known=fact), way()).scope.known == frozenset()


def test_name_that_is_sure_on_one_way_and_tested_on_the_other_is_sure() -> None:
    tested = way(a=optional(TEXT), known=frozenset({("a",)}))
    path = joined(way(a=TEXT), tested)
    assert path.scope.names == {"a": optional(TEXT)}
    assert ("a",) in path.scope.known


def test_fork_is_walked_apart() -> None:
    path = way(a=optional(TEXT))
    other = path.fork(frozenset({("a",)}))
    other.scope = other.scope.extend({"b": TEXT})
    other.alive = False
    assert path.alive and path.scope.names == {"a": optional(TEXT)} and not path.scope.known


def test_call_is_there_when_all_ways_have_it() -> None:
    one, two = way(), way()
    one.call = one.request = two.request = True
    path = joined(one, two)
    assert (path.call, path.request) == (False, True)


def test_names_of_a_block_end_with_it_and_shadowed_ones_come_back() -> None:
    path = way(event=TEXT, kept=TEXT)
    before = path.scope
    path.scope = before.extend({"event": NUMBER, "error": BOOL, "new": DIGITS}).narrow({("event",), ("new",)})
    path.leave(before, ["event", "error"])
    assert path.scope.names == {"event": TEXT, "kept": TEXT, "new": DIGITS}
    assert path.scope.known == frozenset({("new",)})


# --- literals -------------------------------------------------------------------------------------------------------


def scalar(text: str) -> Scalar:
    root = parse("t", f"x: {text}").root
    assert isinstance(root, Entries)
    node = root.get("x")
    assert isinstance(node, Scalar)
    return node


@pytest.mark.parametrize(
    ("text", "type", "value"),
    [
        ("5", NUMBER, 5),
        ("-5", NUMBER, -5),
        ("0", NUMBER, 0),
        ("3.5", NUMBER, 3.5),
        ("05", DIGITS, "05"),
        ("+49", DIGITS, "+49"),
        ("0049301234", DIGITS, "0049301234"),
        ("49301234", NUMBER, 49301234),
        ("'5'", TEXT, "5"),
        ("true", BOOL, True),
        ("yes", TEXT, "yes"),
        ("True", TEXT, "True"),
        ("null", NULL, None),
        ("~", NULL, None),
        ("", NULL, None),
        ("30s", DURATION, 30.0),
        ("'30s'", TEXT, "30s"),
        ("1e5", TEXT, "1e5"),
        ("0x10", TEXT, "0x10"),
        ("1_000", TEXT, "1_000"),
        ("08:00", TEXT, "08:00"),
        ("99999999999999999999", DIGITS, "99999999999999999999"),
    ],
)
def test_written_values(text: str, type: Type, value: object) -> None:
    assert typed(scalar(text)) == (type, value)


def test_durations_are_texts_where_json_is_written() -> None:
    assert typed(scalar("30s"), durations=False) == (TEXT, "30s")


def test_numbers() -> None:
    assert [number(text) for text in ("12", "-1", "012", "1.0", "", "x")] == [12, -1, None, None, None, None]


# --- values ---------------------------------------------------------------------------------------------------------


def test_lists_and_maps_evaluate_what_is_inside() -> None:
    name = compile_template("${a}", Scope({"a": TEXT}))
    value = MapValue({"l": ListValue([Constant(1), name]), "n": Constant(None)})
    assert value.evaluate({"a": "x"}) == {"l": [1, "x"], "n": None}


def test_one_value_may_stand_for_a_list() -> None:
    one, many = Constant("a"), ListValue([Constant("a"), Constant("b")])
    assert AsList(one).evaluate({}) == ["a"]
    assert AsList(many).evaluate({}) == ["a", "b"]


def test_constants_are_known_at_load() -> None:
    assert constant_of(Constant(5)) == 5
    assert constant_of(compile_expression("2 + 3", Scope({}))) == 5
    assert constant_of(compile_expression("a", Scope({"a": NUMBER}))) is None
    assert constant_of(None) is None


def test_contact_test_puts_the_contact_in_the_place_of_the_event() -> None:
    scope = Scope({"event": record("event", {"uri": TEXT}), "want": TEXT})
    test = ContactTest({"aor": Constant("a@b")}, compile_expression("event.uri == want", scope))
    env = {"contact": {"aor": "a@b", "uri": "u"}, "want": "u", "event": {"uri": "outer"}}
    assert test.evaluate(env) is True
    assert test.evaluate({**env, "want": "x"}) is False
    assert test.evaluate({**env, "contact": {"aor": "c@d", "uri": "u"}}) is False
    assert ContactTest({}, None).evaluate(env) is True


# --- places ---------------------------------------------------------------------------------------------------------


def test_report_places_an_expression_error_inside_a_folded_text() -> None:
    document = parse("t", "x: >\n  one\n  two ${nobody}\n")
    assert isinstance(document.root, Entries)
    node = document.root.get("x")
    assert isinstance(node, Scalar)
    with pytest.raises(ExprError) as caught:
        compile_template(node.text, Scope({}))
    Report(document).expression(caught.value, node)
    (found,) = document.diagnostics
    assert (found.line, found.column, found.length) == (3, 9, 6)


def test_report_underlines_what_stands_on_the_first_line() -> None:
    document = parse("t", "a: 'quoted'\nb: plain\n  goes on\nc: [list]\nd: ''")
    report = Report(document)
    assert isinstance(document.root, Entries)
    widths = [report.width(node) for _, node in document.root]
    assert widths == [8, 5, 1, 2]
    report.add("W301", "m", Place("t", 1, 1))
    assert document.diagnostics[-1].severity == "warning"


def test_comment_behind_a_plain_value_is_seen() -> None:
    document = parse("t", "a: x #c\nb: 'x' #c\nc: x\nd:   #c\ne: x#c")
    assert isinstance(document.root, Entries)
    report = Report(document)
    assert [report.cut_by_comment(node) for _, node in document.root if isinstance(node, Scalar)] == [
        True,
        False,
        False,
        True,
        False,
    ]


# --- the context ----------------------------------------------------------------------------------------------------


def test_the_host_provides_every_field_that_is_promised() -> None:
    assert set(CALL.fields) <= set(request_view.FIELDS) | set(views._LIVE)
    assert set(REQUEST.fields) <= set(request_view.FIELDS) | {"user"}


def test_every_result_an_action_names_is_described() -> None:
    named = {action.result for action in ACTIONS if action.result} - {"event", "returned value"}
    assert named == set(RESULTS)


def test_events_become_records() -> None:
    by_name = {spec.name: event_type(spec) for spec in BUILTIN_EVENTS}
    assert by_name["dtmf"].fields["digit"] == DIGITS
    assert by_name["dtmf"].fields["leg"].values == ("caller", "callee")
    assert by_name["registered"].fields["path"] == optional(TEXT)
    custom = event_type(custom_event("due", {"when": "time", "who": "optional contact"}))
    assert str(custom.fields["when"]) == "time"
    assert custom.fields["who"].optional


def test_names_of_the_engine_are_reserved() -> None:
    outcomes = {action.name for action in ACTIONS if action.field("on") is not None}
    assert set(ROOTS) | outcomes <= RESERVED


def test_state_checker_takes_an_empty_set() -> None:
    StateChecker({}, {}).check()
