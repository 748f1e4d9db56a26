"""Numbers in forms, as people write them in different countries; and how values are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.console.inputs import parse_number, parse_whole
from orchestrator.console.rendering import clock, duration, moment, number, plain, seconds, since


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5", 1.5), ("1,5", 1.5), (" 0,25 ", 0.25), ("-3", -3), ("1.234,5", 1234.5), ("1,234.5", 1234.5),
        ("1 234,5", 1234.5), ("1 234.5", 1234.5), ("1'234.5", 1234.5), ("1,000,000", 1e6), ("1.000.000", 1e6),
        ("1.000", 1.0), ("1e3", 1000.0),
    ],
)  # fmt: skip
def test_a_number_is_read_as_it_is_written(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "x", "1,2,3", "1.2.3", "nan", "inf", "1_000", "٣", "0x10", "1,,5", "--1"])
def test_what_is_no_number_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number; write"):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1000", 1000), ("1.000", 1000), ("1,000", 1000), ("1 000 000", 10**6), ("12.345.678", 12_345_678), ("-7", -7)],
)
def test_a_whole_number_may_have_thousands_of_both_kinds(text: str, value: int) -> None:
    assert parse_whole(text) == value


@pytest.mark.parametrize("text", ["", "1.5", "1,5", "1,00", "1.0000", "x", "٣", "1e3", "9" * 19])
def test_what_is_no_whole_number_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        parse_whole(text)


@given(st.text(max_size=30))
def test_any_text_is_a_number_or_is_refused_with_words(text: str) -> None:
    for parse in (parse_number, parse_whole):
        try:
            assert isinstance(parse(text), int | float)
        except ValueError as error:
            assert "write" in str(error)


@given(st.floats(-1e9, 1e9).map(lambda value: round(value, 3)))
def test_what_the_console_shows_can_be_typed_in_again(value: float) -> None:
    assert parse_number(number(value, 3)) == value


def test_values_are_shown_in_one_way() -> None:
    assert number(1234567) == "1 234 567"
    assert number(0.25, 2) == "0.25"
    assert number(-0.0001, 3) == "0.000"
    assert number(None) == "–"
    assert [seconds(value) for value in (0.085, 0.9996, 3.25, 247.0, None)] == [
        "85 ms",
        "1.00 s",
        "3.25 s",
        "4:07",
        "–",
    ]
    assert [duration(value) for value in (7.9, 3723, 2 * 86400 + 61, -1)] == ["0:07", "1:02:03", "2 d 0:01:01", "0:00"]
    assert clock("2026-11-30T18:03:59.250Z") == "18:03:59.250"
    assert moment(0) == "1970-01-01 00:00:00"
    assert since("1970-01-01T00:00:01.500Z") == "1500"
    assert plain({"a": [1, None, True], "b": "x"}) == "a: [1, null, true], b: x"
