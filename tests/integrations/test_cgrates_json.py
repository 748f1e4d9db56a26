"""What is said to CGRateS and how its answers are read: values worked out by hand, streams cut at every octet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.flow.run.charging import Authorise, Charged, Report
from orchestrator.integrations.cgrates.cgr_json import LONGEST, Garbage, Objects, answer, request
from orchestrator.integrations.cgrates.cgr_service import CgratesSettings, parse_engine
from orchestrator.integrations.cgrates.charges import Speaker, max_usage, moment, session_of, span, usage_of
from orchestrator.settings.values import InvalidValue

CHARGED = Charged(
    "ab12-2", "ab12", "call@phone", 'al"ice\r\n', "00123", "", "example.com", "pseudoprepaid", 1_606_748_000.7
)
STREAM = (
    b'{"id":1,"result":"a}{\\"]","error":null}\n \r\n{"id":2,"result":[{"b":{}}]}{"method":"X","params":["\\\\"]}\n'
)
FOUND = [
    {"id": 1, "result": 'a}{"]', "error": None},
    {"id": 2, "result": [{"b": {}}]},
    {"method": "X", "params": ["\\"]},
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_objects_back_to_back_in_pieces(size: int) -> None:
    objects = Objects()
    found = [each for at in range(0, len(STREAM), size) for each in objects.feed(STREAM[at : at + size])]
    assert found == FOUND


def test_a_stream_cut_anywhere() -> None:
    for cut in range(len(STREAM)):
        objects = Objects()
        assert [*objects.feed(STREAM[:cut]), *objects.feed(STREAM[cut:])] == FOUND


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\r\n", b"[1]", b'{"a":}', b"{]", b"\0", b"5", b'{"a":"\xff"}', b"{" + b'"a":[' * 100_000]
)
def test_what_is_no_object_ends_the_stream(data: bytes) -> None:
    objects = Objects()
    with pytest.raises(Garbage):
        list(objects.feed(data))
        list(objects.feed(b"}" * LONGEST))


def test_an_object_without_end_is_bounded() -> None:
    objects = Objects()
    with pytest.raises(Garbage):
        for _ in range(40):
            list(objects.feed(b'{"a": "' + b"x" * 65_536))


def test_an_answer_before_garbage_in_the_same_octets_is_found() -> None:
    found = Objects().feed(b'{"id":1,"result":"OK","error":null}\nHTTP/1.1 400')
    assert next(found) == {"id": 1, "result": "OK", "error": None}
    with pytest.raises(Garbage):
        next(found)


def test_a_string_in_pieces_is_looked_at_once() -> None:
    objects = Objects()
    assert list(objects.feed(b'{"a": "')) == []
    for piece in (b"x" * 1000, b"\\", b'"', b"y\\\\"):
        assert list(objects.feed(piece)) == []
    assert objects._at == len(objects._held)
    assert list(objects.feed(b'"}')) == [{"a": "x" * 1000 + '"y\\'}]


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("-inf"), float("nan"), "1e400", "9" * 400])
def test_a_usage_beyond_all_limits_cannot_be_read(value: Any) -> None:
    with pytest.raises(ValueError, match="beyond all limits"):
        usage_of(value)
    with pytest.raises(ValueError, match="beyond all limits"):
        usage_of(value, in_seconds=True)
    assert usage_of(2**63 - 1) == pytest.approx(9_223_372_036.854776)  # the largest that CGRateS can say


def test_requests_and_answers_are_one_object_each() -> None:
    assert json.loads(request(7, "SessionSv1.Ping", {"a": "ü"})) == {
        "method": "SessionSv1.Ping", "id": 7, "params": [{"a": "ü"}],
    }  # fmt: skip
    assert json.loads(answer(9, None, "NOT_FOUND")) == {"id": 9, "result": None, "error": "NOT_FOUND"}


def test_the_requests_of_a_session() -> None:
    speaker = Speaker("node1", "cgrates.org", {"Category": "call"}, {"*x": "y"}, ("ProcessThresholds",))
    same = {
        "Category": "call", "ToR": "*voice", "RequestType": "*pseudoprepaid", "OriginID": "ab12-2",
        "OriginHost": "node1", "Source": "orchestrator", "CallID": "call@phone",
        "Account": 'al"ice\r\n', "Destination": "00123", "SetupTime": "1606748000",
    }  # fmt: skip
    assert speaker.authorise(Authorise(CHARGED, 7200.0)) == (
        "SessionSv1.AuthorizeEvent",
        {
            "GetMaxUsage": True, "ProcessThresholds": True, "Tenant": "cgrates.org", "ID": "ab12-2-authorise",
            "APIOpts": {"*maxUsage": True, "*x": "y"}, "Event": {**same, "Usage": "7200s"},
        },
    )  # fmt: skip
    assert speaker.report(Report("close", CHARGED, 12.3456, 1_606_748_003.2, "normal", 4)) == (
        "SessionSv1.TerminateSession",
        {
            "TerminateSession": True, "Tenant": "cgrates.org", "ID": "ab12-2-close-4",
            "APIOpts": {"*terminate": True, "*x": "y"},
            "Event": {**same, "AnswerTime": "1606748003", "Usage": "12.346s", "DisconnectCause": "normal"},
        },
    )  # fmt: skip
    method, record = Speaker("node1").report(Report("record", CHARGED, 1.0, 5.0, "", 5))
    assert method == "SessionSv1.ProcessCDR" and record["Tenant"] == "example.com"
    assert set(record) == {"Tenant", "ID", "APIOpts", "Event"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0), (-1, None), (None, None), (20_000_000_000, 20.0), (1.5e9, 1.5), ("20s", 20.0), ("1m20s", 80.0),
        ("1h0m0.5s", 3600.5), ("250ms", 0.25), ("30000000000", 30.0), ("-1", None), ("-1ns", None),
    ],
)  # fmt: skip
def test_max_usage(value: Any, seconds: float | None) -> None:
    assert max_usage("SessionSv1.AuthorizeEvent", {"MaxUsage": value}) == seconds


def test_max_usage_of_a_method_with_digest_is_in_seconds() -> None:
    method = "SessionSv1.AuthorizeEventWithDigest"
    assert max_usage(method, {"MaxUsage": 12.5}) == 12.5
    assert max_usage(method, {"MaxUsage": -1}) is None and max_usage(method, {"MaxUsage": 0}) == 0.0


@pytest.mark.parametrize("result", [{}, "OK", None, [], {"maxusage": 1}])
def test_no_max_usage_is_no_limit(result: Any) -> None:
    assert max_usage("SessionSv1.InitiateSession", result) is None


@pytest.mark.parametrize("value", ["soon", True, {}, [], "20 seconds", "", "s"])
def test_what_is_no_usage(value: Any) -> None:
    with pytest.raises(ValueError):
        usage_of(value)


def test_texts() -> None:
    assert [span(value) for value in (None, 0.0, 20.0, 0.25, 100.0)] == [None, "0s", "20s", "0.25s", "100s"]
    assert moment(1.9) == "1" and moment(None) is None


@pytest.mark.parametrize(
    ("params", "session", "reason"),
    [
        ([{"EventStart": {"OriginID": "a"}, "Reason": "r"}], "a", ("r", None)),
        ([{"Event": {"OriginID": "b", "DisconnectCause": "c"}, "APIOpts": None}], "b", (None, "c")),
        ([{"OriginID": "d"}], "d", (None, None)),
        ({"OriginID": "e"}, "e", (None, None)),
        ([], "", (None, None)), ([None], "", (None, None)), ("x", "", (None, None)),
        ([{"EventStart": 5}], "", (None, None)),
    ],
)  # fmt: skip
def test_callbacks_of_all_generations(params: Any, session: str, reason: tuple[str | None, str | None]) -> None:
    found, event = session_of(params)
    assert found == session and (event.get("Reason"), event.get("DisconnectCause")) == reason


@pytest.mark.parametrize(
    ("text", "address"),
    [("tcp://a.b", ("a.b", 2014)), ("tcp://10.0.0.1:2012", ("10.0.0.1", 2012)), ("tcp://[::1]:9", ("::1", 9))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_engine(text) == address
    assert CgratesSettings.model_validate({"address": [text, "tcp://c"]}).address == (address, ("c", 2014))


@pytest.mark.parametrize("text", ["a.b:2014", "http://a", "tcp://", "tcp://a:0", "tcp://a:99999", "tcp://a/b", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_engine(text)
