"""What a REGISTER with push parameters gets and leaves behind, held against RFC 8599 by section."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import pytest
from test_registrar import AOR, Desk

from orchestrator.sip import purr
from orchestrator.sip.location import Location
from orchestrator.sip.message import Response
from orchestrator.sip.push import PushPolicy, PushService
from orchestrator.sip.registrar import RegisterPolicy
from orchestrator.sip.uri import parse_uri
from orchestrator.store.sqlite import SqliteStore

APPLE = PushService("iphones", "apns", teams=("DEF123GHIJ",))
WEB = PushService("browsers", "webpush", vapid="BKey_x-y")
SERVICES = (APPLE, PushService("androids", "fcm"), WEB)
APNS = "pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid=00fc13adff785122"
FCM = "pn-provider=fcm;pn-param=project;pn-prid=c2:APA"
LINPHONE = "pn-provider=apns.dev;pn-param=DEF123GHIJ.com.example.app.remote&voip;pn-prid=aa:remote&bb:voip"
LEGACY = "pn-type=firebase;app-id=1;pn-tok=c2:APA"


def desk(*services: PushService, refresh: float = 120.0, **more: Any) -> Desk:
    return Desk(push=PushPolicy(services or SERVICES, refresh=refresh), **more)


def contact(params: str, tail: str = "", at: str = "10.0.0.11") -> str:
    return f"Contact: <sip:bob@{at};{params}>{tail}"


def features(answer: Response) -> list[str]:
    """The Feature-Caps lines, without the PURR, which is another one each time."""
    lines = [line.decode() for line in answer.get_all(b"feature-caps")]
    return [re.sub(r';\+sip\.pnspurr="[\w-]+"', ";PURR", line) for line in lines]


# --- §4.1.5, §5.6.1.2: queries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["pn-provider", "pn-provider=", "PN-Provider"])
def test_a_query_without_a_value_is_told_every_service_in_a_line_of_its_own(query: str) -> None:
    at = desk()
    answer = at.register(contact(query))
    assert answer.status == 200
    assert features(answer) == [
        '*;+sip.pns="apns"',
        '*;+sip.pns="fcm"',
        '*;+sip.pns="webpush";+sip.vapid="BKey_x-y"',
    ]
    assert not at.bindings[0].mobile


def test_two_accounts_of_one_service_are_one_service() -> None:
    at = desk(APPLE, PushService("other", "apns", teams=("ABC123GHIJ",)))
    assert features(at.register(contact("pn-provider"))) == ['*;+sip.pns="apns"']


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("pn-provider=apns", '*;+sip.pns="apns"'),
        ("pn-provider=APNS;pn-param=DEF123GHIJ.com.example.app.voip", '*;+sip.pns="apns"'),
        ("pn-provider=apns.dev", '*;+sip.pns="apns"'),
        ("pn-provider=firebase", '*;+sip.pns="fcm"'),
        ("pn-provider=webpush", '*;+sip.pns="webpush";+sip.vapid="BKey_x-y"'),
    ],
)
def test_a_query_with_a_value_is_told_that_service_only(query: str, told: str) -> None:
    assert features(desk().register(contact(query))) == [told]


def test_a_query_for_a_service_nobody_serves_is_answered_555() -> None:
    at = desk()
    answer = at.register(contact("pn-provider=acme"))
    assert (answer.status, answer.reason) == (555, b"Push Notification Service Not Supported")
    assert at.bindings == []


# --- §5.6.1.1: a phone that wants to be woken -------------------------------------------------------------------------


@pytest.mark.parametrize(("params", "service"), [(APNS, "apns"), (FCM, "fcm"), (LINPHONE, "apns"), (LEGACY, "fcm")])
def test_a_phone_is_told_the_service_that_wakes_it(params: str, service: str) -> None:
    at = desk()
    answer = at.register(contact(params))
    assert features(answer) == [f'*;+sip.pns="{service}";PURR']
    assert at.expiries(answer) == {f"sip:bob@10.0.0.11;{params}": 3600}, "the Contact goes back as it came"
    assert features(at.register(contact(params))) == features(answer), "each refresh is told the same"
    assert at.register(contact("x=y")).get_all(b"feature-caps") == [], "for others nothing is said"


@pytest.mark.parametrize(("refresh", "told"), [(120.0, 121), (0.0, 121), (30.0, 121), (600.0, 601)])
def test_a_phone_that_wakes_itself_is_told_when_to_register(refresh: float, told: int) -> None:
    """§4.1.4, §5.6.1.1: more than 120 seconds before the end, and before we would wake it."""
    at = desk(refresh=refresh)
    answer = at.register(contact(APNS, ";+sip.pnsreg"))
    assert features(answer) == [f'*;+sip.pns="apns";+sip.pnsreg="{told}";PURR']
    assert b"+sip.pnsreg;expires=3600" in answer.get_all(b"contact")[0]


def test_several_contacts_have_a_line_for_each_service() -> None:
    answer = desk().register(contact(APNS), contact(FCM, at="10.0.0.12"), contact(LINPHONE, at="10.0.0.13"))
    assert features(answer) == ['*;+sip.pns="apns";PURR', '*;+sip.pns="fcm";PURR']


@pytest.mark.parametrize(
    "params",
    [
        "pn-provider=acme;pn-param=x;pn-prid=y",
        "pn-provider=%22%0d%0aX;pn-param=x;pn-prid=y",
        "pn-provider=acme",
    ],
)
def test_555_is_for_services_nobody_serves_and_for_all_contacts_or_none(params: str) -> None:
    at = desk()
    answer = at.register(contact(APNS, at="10.0.0.9"), contact(params))
    if b"%0d" in params.encode():  # nothing that a push service could be asked for: an ordinary contact
        assert answer.status == 200
        return
    assert answer.status == 555 and at.bindings == []


@pytest.mark.parametrize("params", ["pn-provider=acme", "pn-provider=acme;pn-param=x;pn-prid=y"])
def test_555_can_be_turned_off(params: str) -> None:
    """Whoever wakes some phones by flows of his own lets them register as before."""
    at = Desk(push=PushPolicy(SERVICES, unserved="register"))
    answer = at.register(contact(params))
    assert (answer.status, features(answer), len(at.bindings)) == (200, [], 1)


@pytest.mark.parametrize(
    "params",
    [
        "pn-provider=apns;pn-param=ABC123GHIJ.com.example.other.voip;pn-prid=1",  # another team: we have no key for it
        "pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid",
        "pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid=a%00b",
        "pn-prid=1;pn-param=2",
        "pn-type=palm;app-id=1;pn-tok=2",  # before RFC 8599: it could not know what 555 means
    ],
)
def test_what_we_cannot_wake_is_registered_and_promised_nothing(params: str) -> None:
    at = desk()
    answer = at.register(contact(params))
    assert answer.status == 200 and len(at.bindings) == 1
    assert features(answer) == []


@pytest.mark.parametrize("params", ["pn-provider", "pn-provider=acme", "pn-provider=acme;pn-param=x;pn-prid=y", APNS])
def test_without_a_service_nothing_changes_for_anybody(params: str) -> None:
    at = Desk()
    answer = at.register(contact(params, ";expires=60;+sip.pnsreg"))
    assert answer.status == 200 and features(answer) == []
    assert at.expiries(answer) == {f"sip:bob@10.0.0.11;{params}": 60}


# --- §4.1.2: phones that do not want to be woken any more -------------------------------------------------------------


@pytest.mark.parametrize("params", ["pn-provider=acme;pn-param=x", "pn-provider=acme;pn-param=x;pn-prid=y"])
def test_who_leaves_is_not_answered_555(params: str) -> None:
    """The service may have been taken out of the configuration meanwhile."""
    at = desk()
    assert at.register("Contact: <sip:bob@10.0.0.11>").status == 200
    answer = at.register(contact(params, ";expires=0"))
    assert answer.status == 200 and at.bindings == []
    assert at.register("Contact: *", "Expires: 0").status == 200


def test_the_contact_is_removed_without_its_token() -> None:
    at = desk()
    at.register(contact(APNS))
    answer = at.register(contact(APNS.rpartition(";")[0], ";expires=0"))
    assert (answer.status, at.bindings) == (200, [])


def test_a_phone_that_leaves_its_push_parameters_out_is_not_woken_any_more() -> None:
    at = desk()
    at.register(contact(APNS))
    assert features(at.register("Contact: <sip:bob@10.0.0.11>")) == []
    assert [binding.push_address for binding in at.bindings] == [None]


# --- §5.6.1.1: too short ----------------------------------------------------------------------------------------------


def test_a_binding_that_ends_before_its_phone_can_be_woken_is_too_brief() -> None:
    at = desk()
    answer = at.register(contact(APNS, ";expires=179"))
    assert (answer.status, answer.get(b"min-expires")) == (423, b"180")
    assert at.register(contact(APNS, ";expires=180")).status == 200
    assert at.register("Contact: <sip:desk@10.0.0.11>;expires=60").status == 200, "for others all is as it was"
    assert at.register(contact("pn-provider=apns", ";expires=60")).status == 200, "and for queries"
    assert desk(refresh=0.0).register(contact(APNS, ";expires=60")).status == 200


def test_it_is_raised_where_the_registrar_raises() -> None:
    at = desk(register=RegisterPolicy(raise_short=True))
    answer = at.register(contact(APNS, ";expires=60"))
    assert list(at.expiries(answer).values()) == [180]


def test_a_phone_that_can_be_woken_may_register_for_days() -> None:
    """It may be without a network for hours, and is to ring afterwards."""
    at = desk()
    asked = ";expires=31536000"
    answer = at.register(contact(APNS, asked), contact("ob", asked, at="10.0.0.12"))
    assert sorted(at.expiries(answer).values(), key=str) == [604800, 7200]
    assert at.expiries(at.register(contact(APNS)))[f"sip:bob@10.0.0.11;{APNS}"] == 3600, "who does not ask for it"
    at = desk(register=RegisterPolicy(max_expires=600, bounded=True))
    assert list(at.expiries(at.register(contact(APNS, asked))).values()) == [600], "a flow says otherwise"


def test_where_the_registrar_grants_too_little_nothing_is_promised() -> None:
    at = desk(register=RegisterPolicy(max_expires=100, bounded=True))
    answer = at.register(contact(APNS))
    assert list(at.expiries(answer).values()) == [100]
    assert features(answer) == []


# --- §5.6.1.1, RFC 6809: a proxy before us ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (APNS, '*;+sip.pns="apns"'),
        (APNS, '*;+g.x;+sip.pns="apns";+sip.pnsreg="121"'),
        (APNS, '*;+sip.pns="fcm", *;+SIP.pns=APNS'),
        (LINPHONE, '*;+sip.pns="apns.dev"'),
        ("pn-provider=acme;pn-param=x;pn-prid=y", '*;+sip.pns="acme"'),
    ],
)
def test_who_is_woken_by_a_proxy_before_us_is_none_of_our_business(params: str, said: str) -> None:
    at = desk()
    answer = at.register(contact(params, ";expires=60"), f"Feature-Caps: {said}", "Path: <sip:10.0.0.11;lr>")
    assert answer.status == 200 and features(answer) == []
    [binding] = at.bindings
    assert binding.woken_upstream and binding.push_address is None and binding.mobile
    assert not at.world.engine.pusher.sleeps(binding)
    assert features(at.register(contact(APNS))) == ['*;+sip.pns="apns";PURR'], "the proxy is gone, the phone is ours"
    assert [each.woken_upstream for each in at.bindings if APNS in each.uri] == [False]


@pytest.mark.parametrize(
    "said",
    [
        '*;+sip.pns="fcm"',
        "*;+sip.pns",
        "*;+g.x",
        "",
        '"',
        '*;+sip.pns="apns";+sip.pns="apns"',
        'x;+sip.pns="apns"',
        ",",
    ],
)
def test_a_proxy_that_says_nothing_of_this_service_does_not_wake_the_phone(said: str) -> None:
    at = desk()
    assert features(at.register(contact(APNS), f"Feature-Caps: {said}")) == ['*;+sip.pns="apns";PURR']
    assert not at.bindings[0].woken_upstream


def test_a_query_is_not_told_twice() -> None:
    """§5.6.1.2: the proxy before us adds to the answer what it has said."""
    at = desk(APPLE, SERVICES[1])
    assert features(at.register(contact("pn-provider"), 'Feature-Caps: *;+sip.pns="apns"')) == ['*;+sip.pns="fcm"']
    assert features(at.register(contact("pn-provider=apns"), 'Feature-Caps: *;+sip.pns="apns"')) == []
    answer = at.register(contact("pn-provider=acme"), 'Feature-Caps: *;+sip.pns="other"')
    assert (answer.status, features(answer)) == (200, []), "no 555 where a proxy has spoken"


def test_who_wakes_a_phone_is_known_after_a_restart(tmp_path: Any) -> None:
    store = SqliteStore(tmp_path / "location.db")
    at = desk(store=store)
    at.register(contact(APNS), 'Feature-Caps: *;+sip.pns="apns"')
    at.register(contact(FCM, ";+sip.pnsreg", at="10.0.0.12"))
    store.close()
    again = Location(SqliteStore(tmp_path / "location.db"))
    again.load(at.world.engine.wall)
    apple, android = sorted(again.bindings(AOR, at.world.engine.wall), key=lambda binding: binding.uri)
    assert (apple.woken_upstream, apple.push_address) == (True, None)
    assert android.push_address is not None and android.wakes_itself
    again.store.close()


# --- §6.2.1: PURRs ----------------------------------------------------------------------------------------------------


def purr_of(answer: Response) -> str:
    [found] = re.findall(r'\+sip\.pnspurr="([\w-]+)"', answer.get_all(b"feature-caps")[0].decode())
    return str(found)


def test_a_purr_leads_to_its_phone_wherever_that_registers_from() -> None:
    at = desk()
    first = purr_of(at.register(contact(APNS, ';+sip.instance="<urn:uuid:1>"'), call_id="a"))
    other = purr_of(at.register(contact(FCM, at="10.0.0.12"), call_id="b"))
    again = purr_of(at.register(contact(APNS, ';+sip.instance="<urn:uuid:1>"', at="10.9.9.9:41000"), call_id="c"))
    assert len({first, other, again}) == 3, "nobody else can tell which belong together"
    phone_of = at.world.engine.registrations.phone_of
    for value, host in ((first, "10.9.9.9"), (again, "10.9.9.9"), (other, "10.0.0.12")):
        found = phone_of(parse_uri(f"sip:x@192.0.2.1;pn-purr={value}".encode()))
        assert found is not None and host in found.uri
    new = APNS.replace("00fc13", "00fc14")
    at.register(contact(new, ';+sip.instance="<urn:uuid:1>"'), call_id="d")
    found = phone_of(parse_uri(f"sip:x@192.0.2.1;pn-purr={first}".encode()))
    assert found is not None and "00fc14" in found.uri, "a new token"


def test_a_phone_without_an_instance_is_known_by_its_token_or_its_call_id() -> None:
    at = desk()
    value = purr_of(at.register(contact(FCM), call_id="a"))
    uri = parse_uri(f"sip:x@192.0.2.1;pn-purr={value}".encode())
    at.register(contact(FCM, at="10.0.0.77"), call_id="a new start of the app")
    assert at.world.engine.registrations.phone_of(uri) is not None
    at.register("Contact: *", "Expires: 0", call_id="z")
    assert at.world.engine.registrations.phone_of(uri) is None
    at.register(contact(FCM.replace("APA", "APB"), at="10.0.0.78"), call_id="a")
    assert at.world.engine.registrations.phone_of(uri) is not None


def test_a_purr_cannot_be_made_changed_or_read_by_others() -> None:
    at = desk()
    value = purr_of(at.register(contact(APNS)))
    veil = at.world.engine.network.veil
    assert purr.read(veil, value.encode()) is not None
    assert b"bob" not in value.encode()
    for place in range(len(value)):
        changed = value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :]
        found = purr.read(veil, changed.encode())
        assert found is None or place == len(value) - 1, place  # the last digit has bits that stand for nothing
    for forged in (b"", b"=", b"%", b"A" * 20, b"A" * 9000, value.encode()[:-4], b"\xff\x00"):
        assert purr.read(veil, forged) is None


def test_an_address_of_record_that_is_far_too_long_gets_no_purr() -> None:
    at = desk()
    user = "u" * 300
    answer = at.register(contact(APNS), to=f"<sip:{user}@example.com>")
    assert answer.status == 200 and features(answer) == ['*;+sip.pns="apns"']


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_a_token_of_4_kb_is_refused_and_nothing_is_left() -> None:
    at = desk()
    assert at.register(contact(f"pn-provider=apns;pn-param=x;pn-prid={'a' * 4096}")).status == 400
    assert at.register(contact(APNS), f"Feature-Caps: {','.join(['*;+sip.pns=x'] * 400)}").status == 200
    assert len(at.bindings) == 1


# --- a REGISTER that ends elsewhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "status", "said"),
    [
        (APNS, 200, 'Feature-Caps: *;+sip.pns="apns"'),
        ("pn-provider", 200, 'Feature-Caps: *;+sip.pns="acme"'),
        ("pn-provider=acme;pn-param=x;pn-prid=y", 555, "X-Y: z"),
    ],
)
def test_a_register_that_passes_through_is_left_to_whoever_it_is_for(params: str, status: int, said: str) -> None:
    """§5.6.1.1: we are not on the way back to the phone, so we do not say that we wake it. 555 is not ours to send."""
    at = desk(trust=(ip_network("10.0.0.0/8"),))
    registrar = at.world.peer("registrar", "10.0.0.50")
    headers = (contact(params), 'Feature-Caps: *;+sip.pns="other"')
    ask = at.phone.ask("REGISTER", "sip:10.0.0.50", *headers, to="<sip:bob@10.0.0.50>")
    at.world.run()
    [request] = registrar.requests("REGISTER")
    assert request.get_all(b"feature-caps") == [b'*;+sip.pns="other"']
    assert request.get_all(b"contact") == [headers[0].partition(": ")[2].encode()]
    registrar.answer(request, status, said)
    at.world.run()
    assert ask.statuses == [status]
    assert f"{said}".encode() in ask.final.lines and len(ask.final.get_all(b"feature-caps")) == said.count("Caps")
    assert at.bindings == []
