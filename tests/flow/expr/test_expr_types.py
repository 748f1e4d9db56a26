"""Types: how they print, what fits where, what declarations say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.flow.expr import (
    ANY,
    BOOL,
    CONTACT,
    DIGITS,
    DURATION,
    NOTHING,
    NULL,
    NUMBER,
    TEXT,
    TIME,
    TYPE_WORDS,
    URI,
    Type,
    assignable,
    closest,
    comparable,
    did_you_mean,
    edit_distance,
    enum,
    list_of,
    map_of,
    optional,
    parse_type,
    record,
    unify,
)

LEG = enum("caller", "callee")
SCALARS = [TEXT, DIGITS, NUMBER, BOOL, DURATION, TIME, URI, LEG]


@pytest.mark.parametrize(
    "type, printed",
    [
        (BOOL, "true/false"),
        (LEG, "caller/callee"),
        (NULL, "nothing"),
        (ANY, "anything"),
        (optional(TEXT), "text or nothing"),
        (optional(LEG), "caller/callee or nothing"),
        (list_of(DIGITS), "list of digits"),
        (list_of(ANY), "list"),
        (list_of(NOTHING), "list"),
        (list_of(optional(TEXT)), "list of text or nothing"),
        (map_of(TEXT), "map of text"),
        (map_of(ANY), "map"),
        (record("relay result", {}), "relay result"),
        (optional(CONTACT), "contact or nothing"),
    ],
)
def test_types_print_as_messages_write_them(type: Type, printed: str) -> None:
    assert str(type) == printed


@pytest.mark.parametrize(
    "text, type",
    [
        ("text", TEXT),
        ("int", NUMBER),
        ("bool", BOOL),
        ("contacts", list_of(CONTACT)),
        ("optional digits", optional(DIGITS)),
        ("  optional  list of text ", optional(list_of(TEXT))),
        ("map of list of number", map_of(list_of(NUMBER))),
        ("optional any", ANY),
    ],
)
def test_declared_types_are_read(text: str, type: Type) -> None:
    assert parse_type(text) == type


@pytest.mark.parametrize("text", ["", "string", "optional", "list of", "text or nothing", "optional optional strng"])
def test_a_word_that_is_no_type_is_named(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_type(text)
    assert str(caught.value) in text


def test_every_type_word_is_read_and_prints_as_itself_or_its_longer_name() -> None:
    for word in TYPE_WORDS:
        assert str(parse_type(word)) in (word, "number", "true/false", "list of contact", "anything")


def test_optional_is_said_once_and_taken_back() -> None:
    assert optional(optional(TEXT)) == optional(TEXT)
    assert optional(TEXT).required == TEXT
    assert optional(ANY) is ANY
    assert hash(optional(CONTACT)) != hash(CONTACT)


@pytest.mark.parametrize("type", [*SCALARS, list_of(TEXT), map_of(ANY), CONTACT, record("r", {"a": TEXT})])
def test_every_type_fits_itself_anything_and_its_optional(type: Type) -> None:
    assert assignable(type, type)
    assert assignable(type, ANY)
    assert assignable(ANY, type)
    assert assignable(type, optional(type))
    assert assignable(NULL, optional(type))
    assert not assignable(optional(type), type)
    assert not assignable(NULL, type)


@pytest.mark.parametrize("value", [TEXT, DIGITS, URI, LEG])
@pytest.mark.parametrize("target", [TEXT, DIGITS, URI])
def test_what_is_text_at_run_time_fits_where_text_is_kept(value: Type, target: Type) -> None:
    assert assignable(value, target)


@pytest.mark.parametrize(
    "value, target, fits",
    [
        (TEXT, LEG, False),
        (enum("caller"), LEG, True),
        (enum("caller", "both"), LEG, False),
        (NUMBER, TEXT, False),
        (NUMBER, DURATION, False),
        (DURATION, TIME, False),
        (list_of(DIGITS), list_of(TEXT), True),
        (list_of(NUMBER), list_of(TEXT), False),
        (list_of(NOTHING), list_of(NUMBER), True),
        (list_of(optional(TEXT)), list_of(TEXT), False),
        (list_of(TEXT), map_of(TEXT), False),
        (record("a", {"x": TEXT, "y": NUMBER}), record("b", {"x": TEXT}), True),
        (record("a", {"x": NUMBER}), record("b", {"x": TEXT}), False),
        (record("a", {}), record("b", {"x": TEXT}), False),
    ],
)
def test_what_fits_where(value: Type, target: Type, fits: bool) -> None:
    assert assignable(value, target) is fits


def test_comparable_and_unify_do_not_depend_on_the_order() -> None:
    types = [*SCALARS, ANY, NOTHING, list_of(TEXT), list_of(NUMBER), map_of(TEXT), CONTACT, optional(TEXT), NULL]
    for left in types:
        for right in types:
            assert comparable(left, right) == comparable(right, left)
            one, two = unify(left, right), unify(right, left)
            assert (one is None) == (two is None)
            assert one is None or one.kind == two.kind  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "left, right, both",
    [
        (TEXT, DIGITS, TEXT),
        (DIGITS, DIGITS, DIGITS),
        (LEG, TEXT, TEXT),
        (LEG, enum("callee", "both"), enum("caller", "callee", "both")),
        (NULL, NUMBER, optional(NUMBER)),
        (optional(DIGITS), TEXT, optional(TEXT)),
        (NUMBER, ANY, ANY),
        (NUMBER, TEXT, None),
        (optional(NUMBER), TEXT, None),
        (list_of(NOTHING), list_of(TEXT), list_of(TEXT)),
        (list_of(DIGITS), list_of(TEXT), list_of(TEXT)),
        (list_of(NUMBER), list_of(TEXT), None),
        (CONTACT, record("a", {}), None),
    ],
)
def test_one_type_for_two_values(left: Type, right: Type, both: Type | None) -> None:
    assert unify(left, right) == both


@pytest.mark.parametrize(
    "text, printed",
    [
        ("event.digit", "digits"),
        ("event.digit.drop(1).trim()", "digits"),
        ("event.digit + event.digit", "digits"),
        ("'+' + event.digit", "text"),
        ("event.leg.upper()", "text"),
        ("event.leg", "caller/callee"),
        ("event.group", "digits or nothing"),
        ("event.group ?? '1'", "text"),
        ("event.group ?? 1", "digits"),
        ("event.mobile ? event.digit : 7", "digits"),
        ("phone?.leg", "caller/callee or nothing"),
        ("phone?.headers['x']", "text or nothing"),
        ("call.headers.Subject", "text or nothing"),
        ("groups.sales[0]", "digits or nothing"),
        ("groups['front-desk']", "list of digits"),
        ("call.user?.split('@')", "list of text or nothing"),
        ("call.id.split('@')", "list of text"),
        ("found.map(x, x.expires)", "list of number"),
        ("found.filter(x, x.mobile)", "list of contact"),
        ("[]", "list"),
        ("[] + [1]", "list of number"),
        ("[event.digit, 'x']", "list of text"),
        ("[null, 1]", "list of number or nothing"),
        ("now - call.started_at", "duration"),
        ("now + 30s", "time"),
        ("30s + now", "time"),
        ("2 * 30s", "duration"),
        ("call.duration / 2", "duration"),
        ("call.duration / 2s", "number"),
        ("json.a.b[0]", "anything"),
        ("json + 1", "number"),
        ("json + 'x'", "text"),
        ("json + json", "anything"),
        ("json * 2s", "duration"),
        ("2s / json", "duration"),
        ("2s - json", "duration"),
        ("-call.duration", "duration"),
        ("null", "nothing"),
        ("string(7)", "text"),
        ("int('7')", "number"),
        ("event.digit == 2 ? null : 'x'", "text or nothing"),
    ],
)
def test_expressions_have_the_type_they_say(text: str, printed: str, type_of: Callable[[str], str]) -> None:
    assert type_of(text) == printed


@pytest.mark.parametrize(
    "left, right, distance",
    [
        ("", "", 0),
        ("", "abc", 3),
        ("relya", "relay", 1),
        ("calee", "callee", 1),
        ("ab", "ba", 1),
        ("kitten", "sitting", 3),
    ],
)
def test_swapped_letters_are_one_slip(left: str, right: str, distance: int) -> None:
    assert edit_distance(left, right) == edit_distance(right, left) == distance


@pytest.mark.parametrize(
    "word, known, found",
    [
        ("relya", ["reply", "relay"], "relay"),
        ("contcat", ["contact", "uri"], "contact"),
        ("STARTSWITH", ["startsWith"], "startsWith"),
        ("x", ["a", "b"], None),
        ("at", ["it", "call"], "it"),
        ("sound_prefix", ["call", "event"], None),
        ("trys", ["tries"], None),
        ("anything", [], None),
    ],
)
def test_the_nearest_known_word_is_suggested(word: str, known: list[str], found: str | None) -> None:
    assert closest(word, known) == found
    assert did_you_mean(word, known) == (f"did you mean '{found}'?" if found else "")
