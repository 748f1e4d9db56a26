"""Digest: the RFCs' own examples, garbled headers, nonces that are old, forged, moved or used up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import MalformedMessage
from orchestrator.sip import digest
from orchestrator.sip.digest import Account, Credentials, Nonces, Secret
from orchestrator.sip.uri import parse_uri

RFC_7616 = {
    "MD5": "8ca523f5e9506fed4657c9700eebdbec",
    "SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
}
"""RFC 7616 §3.9.1: one request, both answers."""


def example(algorithm: str) -> Credentials:
    return Credentials(
        user="Mufasa",
        realm="http-auth@example.org",
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        uri=b"/dir/index.html",
        response=RFC_7616[algorithm].encode(),
        algorithm=algorithm,
        qop="auth",
        cnonce=b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        count=b"00000001",
    )


def nonces(**more: float) -> Nonces:
    words: Iterator[int] = count(1)
    return Nonces(b"key", lambda: b"%012x" % next(words), **more)  # type: ignore[arg-type]


# --- algorithms of RFC 8760 -------------------------------------------------------------------------------------------


def test_sha_512_256_is_the_one_of_fips_180_4() -> None:
    """RFC 7616 §3.9.2 with erratum 4897: the text has a SHA-512 that is cut off."""
    user, realm = "J\u00e4s\u00f8n Doe", "api@example.org"
    credentials = Credentials(
        user=user,
        realm=realm,
        nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
        uri=b"/doe.json",
        response=b"",
        algorithm="SHA-512-256",
        qop="auth",
        cnonce=b"NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
        count=b"00000001",
    )
    hashed = digest.ha1("SHA-512-256", user, realm, "Secret, or not?")
    wanted = "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
    assert digest.response_of(hashed, credentials, b"GET").decode() == wanted
    assert digest.user_hash("SHA-512-256", user, realm) == (
        "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
    )


# --- responses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", RFC_7616)
def test_the_example_of_the_rfc(algorithm: str) -> None:
    credentials = example(algorithm)
    secret = Secret("Circle of Life")
    hashed = secret.hash(algorithm, "Mufasa", "http-auth@example.org")
    assert hashed is not None
    assert digest.response_of(hashed, credentials, b"GET").decode() == RFC_7616[algorithm]


def test_without_qop_as_in_rfc_2617() -> None:
    """RFC 2069's form (the example of RFC 2617 §3.5 without its qop): needed towards old gateways only."""
    credentials = Credentials(
        "Mufasa", "testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", b"/dir/index.html", b""
    )
    hashed = digest.ha1("MD5", "Mufasa", "testrealm@host.com", "Circle Of Life")
    assert digest.response_of(hashed, credentials, b"GET") == b"670fd8c2df070c60b045671b8b24ff02"


def test_a_hash_serves_its_own_algorithm_only() -> None:
    hashed = digest.ha1("MD5", "bob", "example.com", "x").decode()
    secret = Secret(ha1={"MD5": hashed.upper()})
    assert secret.hash("MD5", "bob", "example.com") == hashed.encode()
    assert secret.hash("SHA-256", "bob", "example.com") is None


def test_a_secret_shows_itself_nowhere() -> None:
    assert "geheim" not in repr(Secret("geheim")) + repr(Account("user", "geheim"))


def signed(uri: bytes, password: str = "right") -> Credentials:
    bare = Credentials("bob", "example.com", "n", uri, b"", "MD5", "auth", b"c", b"00000001")
    response = digest.response_of(digest.ha1("MD5", "bob", "example.com", password), bare, b"REGISTER")
    return Credentials("bob", "example.com", "n", uri, response, "MD5", "auth", b"c", b"00000001")


@pytest.mark.parametrize(
    ("written", "fits"),
    [
        (b"sip:example.com", True),
        (b"sip:EXAMPLE.com:5060;transport=udp", True),
        (b"sip:example.org", False),
        (b"sip:bob@example.com", False),
        (b"sip:example.com:5062", False),
        (b"/dir/index.html", False),
        (b"", False),
    ],
)
def test_the_uri_has_to_be_that_of_the_request(written: bytes, fits: bool) -> None:
    target = parse_uri(b"sip:example.com;x=y")
    assert digest.proves(signed(written), Secret("right"), b"REGISTER", target) is fits


def test_only_the_password_proves() -> None:
    target = parse_uri(b"sip:example.com")
    good = signed(b"sip:example.com")
    assert digest.proves(good, Secret("right"), b"REGISTER", target)
    assert not digest.proves(good, Secret("wrong"), b"REGISTER", target)
    assert not digest.proves(good, Secret("right"), b"INVITE", target), "the method is part of it"
    assert not digest.proves(good, None, b"REGISTER", target)
    assert not digest.proves(signed(b"sip:example.com", ""), None, b"REGISTER", target), "nobody has no password"
    assert not digest.proves(good, Secret(ha1={"SHA-256": "0" * 64}), b"REGISTER", target)


# --- reading ----------------------------------------------------------------------------------------------------------

GOOD = (
    b'Digest username="bob", realm="example.com", nonce="n", uri="sip:example.com", response="00", '
    b'algorithm=MD5, qop=auth, cnonce="c", nc=00000001'
)


def test_credentials_are_read() -> None:
    found = digest.parse_credentials(GOOD)
    assert found == Credentials("bob", "example.com", "n", b"sip:example.com", b"00", "MD5", "auth", b"c", b"00000001")
    assert digest.parse_credentials(b'digest USERNAME = "a\\"b" ,realm=r,nonce=n,uri=sip:x,response=1') == Credentials(
        'a"b', "r", "n", b"sip:x", b"1"
    )
    assert digest.parse_credentials(b"Basic Ym9iOng=") is None


@pytest.mark.parametrize(
    "value",
    [
        b"Digest",
        b"Digest ",
        b'Digest username="bob',
        b'Digest username="bob"',
        b"Digest ,,,",
        GOOD + b",",
        GOOD + b', realm="other"',
        GOOD.replace(b"nc=00000001", b"nc=1"),
        GOOD.replace(b"nc=00000001", b"nc=0000000g"),
        GOOD.replace(b'cnonce="c", ', b""),
        GOOD.replace(b"response=", b"reply="),
        GOOD.replace(b", ", b" "),
    ],
)
def test_garbled_credentials_are_refused(value: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        digest.parse_credentials(value)
    assert caught.value.sip_status == 400


@given(st.binary(max_size=200))
def test_nothing_else_is_ever_raised(tail: bytes) -> None:
    for value in (b"Digest " + tail, GOOD + tail, GOOD[: len(tail)] + tail):
        try:
            digest.parse_credentials(value)
        except MalformedMessage:
            pass


def test_credentials_for_other_realms_are_passed_over() -> None:
    other = GOOD.replace(b'realm="example.com"', b'realm="example.org"')
    assert digest.find_credentials([other], "example.com") is None
    found = digest.find_credentials([b"Basic x", other, GOOD], "example.com")
    assert found is not None and found[0] == 2


# --- nonces -----------------------------------------------------------------------------------------------------------


def test_a_nonce_is_good_for_its_source_algorithm_and_time() -> None:
    made = nonces(lifetime=300.0)
    nonce = made.make(1000.9, "10.0.0.2", "MD5")
    assert made.is_fresh(nonce, 1000.9, "10.0.0.2", "MD5")
    assert made.is_fresh(nonce, 1300.0, "10.0.0.2", "MD5")
    assert not made.is_fresh(nonce, 1301.0, "10.0.0.2", "MD5")
    assert not made.is_fresh(nonce, 1001.0, "10.0.0.3", "MD5")
    assert not made.is_fresh(nonce, 1001.0, "10.0.0.2", "SHA-256")
    assert made.make(1000.9, "10.0.0.2", "MD5") != nonce, "two phones behind one address"


@given(st.integers(0, 51), st.characters(codec="utf-8"))
def test_a_nonce_with_a_changed_character_is_not_ours(at: int, letter: str) -> None:
    made = nonces()
    nonce = made.make(1000, "10.0.0.2", "MD5")
    changed = nonce[:at] + letter + nonce[at + 1 :]
    assert made.is_fresh(changed, 1000, "10.0.0.2", "MD5") is (changed == nonce)


def test_another_key_makes_other_nonces() -> None:
    nonce = Nonces(b"before the restart", lambda: b"0" * 12).make(0, "10.0.0.2", "MD5")
    assert not nonces().is_fresh(nonce, 0, "10.0.0.2", "MD5")


def test_each_count_is_good_once_in_any_order() -> None:
    made = nonces()
    nonce = made.make(0, "10.0.0.2", "MD5")
    assert [made.use(nonce, n) for n in (1, 3, 2, 2, 3, 1)] == [True, True, True, False, False, False]
    assert made.use(nonce, 200)
    assert not made.use(nonce, 200 - digest.WINDOW), "too far behind to be known"
    assert not made.use(nonce, 0)


@given(st.lists(st.integers(0, 200), max_size=60))
def test_no_count_is_ever_taken_twice(counts: list[int]) -> None:
    made = nonces()
    nonce = made.make(0, "10.0.0.2", "MD5")
    taken = [n for n in counts if made.use(nonce, n)]
    assert len(taken) == len(set(taken))


def test_what_is_forgotten_cannot_be_replayed() -> None:
    made = nonces(room=10)
    old = [made.make(100 + n, "10.0.0.2", "MD5") for n in range(20)]
    for nonce in old:
        assert made.use(nonce, 1)
    assert len(made) == 10
    assert not any(made.is_fresh(nonce, 120, "10.0.0.2", "MD5") for nonce in old[:10]), "forgotten, so used up"
    assert all(made.is_fresh(nonce, 120, "10.0.0.2", "MD5") for nonce in old[10:])
    assert made.is_fresh(made.make(120, "10.0.0.2", "MD5"), 120, "10.0.0.2", "MD5")


@pytest.mark.parametrize(
    ("change", "ok"),
    [({}, True), ({"qop": ""}, True), ({"qop": "auth-int"}, False), ({"algorithm": "SHA-256"}, False),
     ({"algorithm": "MD5-SESS"}, False), ({"nonce": "made up"}, False)],
)  # fmt: skip
def test_what_answers_a_challenge(change: dict[str, str], ok: bool) -> None:
    made = nonces()
    fields = {"nonce": made.make(0, "10.0.0.2", "MD5"), "algorithm": "MD5", "qop": "auth", **change}
    credentials = Credentials("bob", "example.com", uri=b"", response=b"", cnonce=b"c", count=b"00000001", **fields)
    assert digest.acceptable(credentials, made, 1, "10.0.0.2") is ok


def test_challenges_stand_in_the_order_given_the_strongest_first_by_default() -> None:
    """RFC 8760 §2.4."""
    first, second, third = digest.challenges(nonces(), 'a "realm"\r\n', 0, "10.0.0.2", stale=True)
    assert b"algorithm=SHA-512-256," in first and b"algorithm=SHA-256," in second and b"algorithm=MD5," in third
    assert first.startswith(b'Digest realm="a \\"realm\\"", nonce=') and first.endswith(b", stale=true")
    assert b"stale" not in digest.challenges(nonces(), "r", 0, "10.0.0.2")[0]


# --- answering gateways -----------------------------------------------------------------------------------------------


def answered(account: Account, *values: bytes, used: tuple[str, ...] = ()) -> Credentials | None:
    found = account.answer(values, b"INVITE", b"sip:1@gw", b"c0", used)
    return digest.parse_credentials(found[0]) if found else None


def test_a_gateways_challenge_is_answered() -> None:
    made = nonces()
    values = digest.challenges(made, "gw", 5, "10.0.0.9")
    found = answered(Account("us", "secret"), *values)
    assert found is not None and found.algorithm == "SHA-512-256", "the first one that is known (RFC 8760 §2.5)"
    assert digest.acceptable(found, made, 5, "10.0.0.9")
    assert digest.proves(found, Secret("secret"), b"INVITE", parse_uri(b"sip:1@gw"))


@pytest.mark.parametrize("algorithm", digest.SPOKEN)
def test_each_algorithm_is_answered(algorithm: str) -> None:
    made = nonces()
    found = answered(Account("us", "secret"), *digest.challenges(made, "gw", 5, "10.0.0.9", algorithms=(algorithm,)))
    assert found is not None and found.algorithm == algorithm
    assert digest.proves(found, Secret("secret"), b"INVITE", parse_uri(b"sip:1@gw"))


def test_an_old_gateway_without_qop_is_answered_too() -> None:
    found = answered(Account("us", "secret"), b'Digest realm="gw", nonce="1", opaque="o"')
    assert found is not None and (found.qop, found.algorithm) == ("", "MD5")
    assert digest.proves(found, Secret("secret"), b"INVITE", parse_uri(b"sip:1@gw"))


@pytest.mark.parametrize(
    "value",
    [
        b'Digest realm="elsewhere", nonce="1"',
        b'Digest realm="gw", nonce="1", algorithm=AKAv1-MD5',
        b'Digest realm="gw", nonce="1", qop="auth-int"',
        b'Digest realm="gw"',
        b'Basic realm="gw"',
        b"Digest garbled",
    ],
)
def test_challenges_we_cannot_or_may_not_answer(value: bytes) -> None:
    assert answered(Account("us", "secret", realm="gw"), value) is None


def test_a_second_challenge_is_answered_only_when_the_nonce_was_stale() -> None:
    account = Account("us", "secret")
    assert answered(account, b'Digest realm="gw", nonce="2"', used=("1",)) is None
    assert answered(account, b'Digest realm="gw", nonce="1", stale=true', used=("1",)) is None
    assert answered(account, b'Digest realm="gw", nonce="2", stale=TRUE', used=("1",)) is not None
