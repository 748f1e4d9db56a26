"""YAML as the language reads it: nothing is typed, everything has a place, nothing explodes (reliability: unsafe
YAML).
"""

from __future__ import annotations

import pytest
from flowcheck import codes, diagnose, first_step, said, steps, value
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.flow.language.yaml import MAX_DEPTH, Document, Entries, Items, Scalar, parse


def root(text: str) -> Entries:
    document = parse("t", text)
    assert not document.broken, document.diagnostics
    assert isinstance(document.root, Entries)
    return document.root


def text_of(text: str, key: str) -> str:
    node = root(text).get(key)
    assert isinstance(node, Scalar)
    return node.text


def problem(text: str) -> str:
    document = parse("t", text)
    assert document.broken
    (found,) = document.diagnostics
    assert found.code == "E001"
    return f"{found.line}:{found.column} {found.message} | {found.help}"


# --- meaning traps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "REGISTER",
        "02",
        "0044123",
        "+4420123",
        "1:30",
        "22:22",
        "no",
        "yes",
        "on",
        "off",
        "0x1F",
        "1e3",
        "08:00",
        "~",
        "010",
    ],
)
def test_scalars_stay_what_was_written(written: str) -> None:
    assert text_of(f"value: {written}", "value") == written


def test_on_is_a_key_and_not_true() -> None:
    assert [key.text for key, _ in root("on: REGISTER\nno: x\ny: z")] == ["on", "no", "y"]


def test_telephone_numbers_reach_the_step_digit_by_digit() -> None:
    step = first_step("- inject: 'sip:0049301234@example.com'\n")
    assert value(step, "to") == "sip:0049301234@example.com"
    raised = first_step(
        """
        - raise: dial
          data: {number: 0049301234, plus: +4930, key: 02, star: '*8', hash: '#'}
        """,
        more="events: {dial: {number: digits, plus: digits, key: digits, star: digits, hash: digits}}",
    )
    data = {name: given.evaluate({}) for name, given in raised.args["data"].items()}
    assert data == {"number": "0049301234", "plus": "+4930", "key": "02", "star": "*8", "hash": "#"}


def test_first_values_keep_leading_zeros() -> None:
    flow = "flowlang: 1\nflows: {main: {on: invite, vars: {a: 0123, b: 12, c: 08:00, d: no, e: 30s}, do: [reply: 404]}}"
    assert diagnose(flow) == []
    from flowcheck import load

    values = {name: given.evaluate({}) for name, given in load(flow).flow("main").vars.items()}
    assert values == {"a": "0123", "b": 12, "c": "08:00", "d": "no", "e": 30.0}


def test_no_as_reply_is_a_bad_status_and_not_false() -> None:
    assert said(steps("- reply: no")) == ["6:16 E106 'no' is not a SIP status code (100-699)"]


def test_minutes_and_seconds_are_no_duration() -> None:
    (found,) = diagnose(steps("- sleep: 1:30"))
    assert found.message == "'1:30' is not a duration"
    assert found.help == "write 90s"


def test_octal_looking_digit_of_a_filter_is_kept() -> None:
    step = first_step("- wait: dtmf\n  where: {digit: 02}")
    assert step.args["where"].equals["digit"].evaluate({}) == "02"


def test_hash_alone_is_a_comment_and_said_to_be_one() -> None:
    (found,) = diagnose(steps("- subscribe: dtmf\n  where:\n    digit: #\n  do: [stop]"))
    assert (found.line, found.code) == (8, "E105")
    assert found.help == "what follows # is a comment in YAML: put the whole value in quotes"


def test_condition_cut_by_a_comment_is_said_to_be_one() -> None:
    (found,) = diagnose(steps("- log: x\n  if: call.target.user == #5"))
    assert found.code == "E201"
    assert "comment" in found.help


def test_trailing_comment_behind_a_whole_value_is_fine() -> None:
    assert diagnose(steps("- reply: 404   # nobody here")) == []


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "help"),
    [
        ("a: 'x' == y", "1:8", "other kind of quotes"),
        ('- if: "2" == x', "1:11", "other kind of quotes"),
        ("a: 'it's'", "1:8", "other kind of quotes"),
        ("a: [1] == x", "1:8", "starts with a bracket"),
        ("a: {b: ${c}}", "1:9", "inside { ... } put ${...} in quotes"),
        ("a: [b: ${c}]", "1:9", "inside [ ... ] put ${...} in quotes"),
        ("a:\n\tb: 1", "2:1", "tabs"),
        ("a: b: c", "1:5", "put the whole value in single quotes"),
        ("a: x ? 'y' : z", "1:12", "put the whole value in double quotes"),
        ("a: b\n  c: d", "2:4", "indented deeper"),
        ("- stop\n  if: x", "2:5", "write  - stop:  with a colon"),
        ("a: @x", "1:4", "cannot start with @"),
        ("a: %x", "1:4", "cannot start with %"),
        ("a: `x`", "1:4", "cannot start with `"),
        ("a: *", "1:5", "starts with * needs quotes"),
        ("a: *8", "1:4", "'*8'"),
        ("a: &", "1:5", "starts with & needs quotes"),
        ("a: !x", "1:4", "starts with ! needs quotes"),
        ("a: !<", "1:6", "starts with ! needs quotes"),
        ("a: {{x}}", "1:5", "instead of {{...}}"),
        ("a: 'x", "1:4", "never closed"),
        ('a: "\\q"', "1:5", "starts an escape"),
        ("a: [1, 2", "2:1", "not closed"),
        ("- a\nb: c", "2:1", "a list and keys are mixed"),
        ("a: |\n  x\n y", "3:2", "indentation"),
        ("a: 1\n---\nb: 2", "2:1", "two files"),
        ("a: {<<: x}", "1:5", "call:"),
        ("a: \x07", "1:4", ""),
    ],
)
def test_syntax_error_says_where_and_why(text: str, place: str, help: str) -> None:
    found = problem(text)
    assert found.startswith(place + " ")
    assert help in found


def test_python_objects_are_not_made() -> None:
    found = problem("a: !!python/object/apply:os.system [true]")
    assert found.startswith("1:4 !!python/object/apply:os.system is a YAML tag, and tags are not supported")


def test_alias_bomb_is_refused_at_once() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    assert "200,000 values" in problem("\n".join(lines))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 900, 3_000])
def test_deep_nesting_is_refused(opening: str, levels: int) -> None:
    """Also where libyaml, which reads ahead, refuses it before we do."""
    assert f"nested deeper than {MAX_DEPTH}" in problem(opening * levels)


def test_alias_inside_its_own_anchor_is_unknown() -> None:
    assert "unknown alias *a" in problem("a: &a [*a]")


def test_alias_stands_for_the_same_value() -> None:
    found = root("a: &a {x: 1}\nb: *a")
    assert found.get("a") is found.get("b")


def test_lone_surrogate_is_no_crash() -> None:
    assert "U+D800 is not allowed" in problem("a: \ud800")


def test_bom_is_skipped() -> None:
    assert text_of("\ufeffa: 1", "a") == "1"


def test_empty_file_has_no_root() -> None:
    assert parse("t", "").root is None
    assert codes("") == ["E002"]


def test_duplicate_key_keeps_the_first_and_names_it() -> None:
    document = parse("t", "a: 1\nb: 2\na: 3")
    assert isinstance(document.root, Entries)
    first = document.root.get("a")
    assert isinstance(first, Scalar) and first.text == "1"
    (found,) = document.diagnostics
    assert (found.code, found.line, found.notes) == ("E104", 3, ("first defined at line 1",))
    assert not document.broken


@given(st.text(max_size=200))
def test_no_text_makes_it_raise(text: str) -> None:
    document = parse("t", text)
    assert document.broken or document.root is not None or not document.diagnostics


@given(st.text(alphabet="ab:-[]{}'\"#&*!|>%@` \n\t${}", max_size=60))
def test_no_punctuation_makes_it_raise(text: str) -> None:
    for found in parse("t", text).diagnostics:
        assert found.line >= 1 and found.column >= 1 and found.length >= 1


# --- places ---------------------------------------------------------------------------------------------------------

PLACES = """\
plain: one ${a}
  two ${b}
single: 'it''s ${c}
  folded, ${d}'
double: "tab\\t${e} \\u00e4${f} \\
  joined ${g}"
literal: |
    first ${h}
      second ${i}
folded: >-
  third ${j}

  fourth ${k}
[list]
"""


def markers(document: Document) -> list[tuple[str, int, int]]:
    assert isinstance(document.root, Entries)
    return [
        (node.text[offset + 2], *document.position(node, offset))
        for _, node in document.root
        if isinstance(node, Scalar)
        for offset in range(len(node.text))
        if node.text.startswith("${", offset)
    ]


def test_offsets_lead_back_to_the_file_through_every_kind_of_quoting() -> None:
    document = parse("t", PLACES.replace("[list]\n", ""))
    found = markers(document)
    assert [name for name, _, _ in found] == list("abcdefghijk")
    for name, line, column in found:
        assert document.line(line)[column - 1 : column + 3] == f"${{{name}}}"


def test_place_of_a_blank_and_of_the_end() -> None:
    document = parse("t", "a: 'x ==  '")
    assert isinstance(document.root, Entries)
    node = document.root.get("a")
    assert isinstance(node, Scalar)
    assert document.position(node, 4) == (1, 9)
    assert document.position(node, 1) == (1, 6)


def test_line_breaks_are_counted_as_yaml_does() -> None:
    document = parse("t", "a: 1\r\nb: 2\rc: 3\u2028d: 4")
    assert isinstance(document.root, Entries)
    assert [key.line for key, _ in document.root] == [1, 2, 3, 4]
    assert document.line(3) == "c: 3"
    assert document.line(9) == ""


def test_containers_know_where_they_end() -> None:
    found = root("a: [1, 2]  # x\nb: {c: d}")
    one, two = found.get("a"), found.get("b")
    assert isinstance(one, Items) and isinstance(two, Entries)
    assert (one.end, two.end) == (9, 24)
    assert repr(one).startswith("<Items") and repr(two).startswith("<Entries")
