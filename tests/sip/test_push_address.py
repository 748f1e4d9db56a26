"""What contacts say about their push services (RFC 8599 §9, Linphone, and what was written before the RFC)."""

import pytest

from orchestrator.sip.push import PushAddress, PushPolicy, PushService, address_of
from orchestrator.sip.uri import parse_uri


def address(params: str) -> PushAddress | None:
    return address_of(parse_uri(f"sip:bob@192.0.2.7;{params}".encode()))


@pytest.mark.parametrize(
    ("params", "service", "team", "app", "tokens", "sandbox"),
    [
        (
            "pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid=00fc13adff785122",
            "apns",
            "DEF123GHIJ",
            "com.example.app",
            {"voip": "00fc13adff785122"},
            False,
        ),
        (
            "pn-provider=apns;pn-param=DEF123GHIJ.com.example.app;pn-prid=00fc13adff785122",
            "apns",
            "DEF123GHIJ",
            "com.example.app",
            {"remote": "00fc13adff785122"},
            False,
        ),
        (
            "pn-provider=apns.dev;pn-param=ABCD1234EF.org.example.phone.remote&voip;pn-prid=aa11:remote&bb22:voip",
            "apns",
            "ABCD1234EF",
            "org.example.phone",
            {"remote": "aa11", "voip": "bb22"},
            True,
        ),
        (
            "pn-provider=fcm;pn-param=929724111839;pn-prid=c2:APA-x_y",
            "fcm",
            "",
            "929724111839",
            {"": "c2:APA-x_y"},
            False,
        ),
        ("pn-type=firebase;app-id=929724111839;pn-tok=tok", "fcm", "", "929724111839", {"": "tok"}, False),
        ("pn-type=android;app-id=929724111839;pn-tok=tok", "fcm", "", "929724111839", {"": "tok"}, False),
        ("pn-provider=Acme;pn-param=x;pn-prid=y", "acme", "", "x", {"": "y"}, False),
    ],
)
def test_all_ways_of_writing_a_push_address(
    params: str, service: str, team: str, app: str, tokens: dict[str, str], sandbox: bool
) -> None:
    found = address(params)
    assert found is not None
    assert (found.service, found.team, found.app, found.tokens, found.sandbox) == (service, team, app, tokens, sandbox)


@pytest.mark.parametrize("params", ["transport=tcp", "pn-provider", "pn-provider=apns", "pn-provider=apns;pn-prid="])
def test_without_a_token_there_is_no_address(params: str) -> None:
    assert address(params) is None


def test_the_first_service_that_serves_an_address_has_it() -> None:
    one = PushService("one", "apns", teams=("DEF123GHIJ",))
    other = PushService("other", "apns")
    policy = PushPolicy((one, other))
    assert policy.service_of(address("pn-provider=apns;pn-param=DEF123GHIJ.com.x.voip;pn-prid=1")) is one
    assert policy.service_of(address("pn-provider=apns;pn-param=ABC123GHIJ.com.x.voip;pn-prid=1")) is other
    assert policy.service_of(address("pn-provider=fcm;pn-param=1;pn-prid=1")) is None
    assert policy.service_of(None) is None


@pytest.mark.parametrize(
    "params",
    [
        "pn-provider=apns;pn-param=ABCD.app;pn-prid=a%00b",
        "pn-provider=apns;pn-param=ABCD.app;pn-prid=a%0d%0aX:%20y",
        "pn-provider=apns;pn-param=AB%20CD;pn-prid=a",
        "pn-provider=a%0ab;pn-param=x;pn-prid=y",
        "pn-provider=fcm;pn-param=x;pn-prid=%ff%fe",
    ],
)
def test_what_could_be_in_no_request_to_a_push_service_is_no_address(params: str) -> None:
    assert address(params) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (  # a phone that is updated from one app library to another: RFC 8599 beside Linphone
            "pn-provider=apns;pn-param=ABCD1234EF.org.example.voip;pn-prid=BB22",
            "pn-provider=apns.dev;pn-param=ABCD1234EF.org.example.remote&voip;pn-prid=aa11:remote&bb22:voip",
            True,
        ),
        ("pn-provider=fcm;pn-param=project;pn-prid=c2:T", "pn-type=firebase;app-id=929724111839;pn-tok=c2:T", True),
        ("pn-provider=fcm;pn-param=project;pn-prid=c2:T", "pn-type=firebase;app-id=929724111839;pn-tok=c2:t", False),
        ("pn-provider=webpush;pn-prid=https://p/1", "pn-provider=webpush;pn-param=x;pn-prid=https://p/1", True),
        ("pn-provider=acme;pn-param=x;pn-prid=T", "pn-provider=ACME;pn-param=x;pn-prid=T", True),
        ("pn-provider=acme;pn-param=x;pn-prid=T", "pn-provider=acme;pn-param=y;pn-prid=T", False),
        ("pn-provider=acme;pn-param=x;pn-prid=T", "pn-provider=fcm;pn-param=x;pn-prid=T", False),
        (
            "pn-provider=apns;pn-param=ABCD1234EF.org.example.voip;pn-prid=1",
            "pn-provider=apns;pn-param=ABCD1234EG.org.example.voip;pn-prid=1",
            False,
        ),
    ],
)
def test_one_phone_is_known_in_whichever_dialect_it_writes(one: str, other: str, same: bool) -> None:
    first, second = address(one), address(other)
    assert first is not None and second is not None
    assert first.is_same_phone(second) is same
    assert second.is_same_phone(first) is same
