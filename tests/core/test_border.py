"""The border: who is banned and for what, and that scanners hear nothing."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from test_auth import sign
from test_call_races import program

from orchestrator.core.settings import CoreLimits
from orchestrator.core.user_addresses import UserAddresses
from orchestrator.core.users import LocalUsers
from orchestrator.flow.loader import load_program
from orchestrator.sip.admission import FAILURES_LAST, MOST_BANS, Admission, SourceLimits
from orchestrator.sip.digest import Secret
from orchestrator.sip.scanners import Scanners
from orchestrator.testing.peer import Peer
from orchestrator.testing.world import World

STRANGER, OFFICE = "203.0.113.66", "203.0.113.7"
AUTH = "      - auth: {realm: example.com, users: local}\n      - reply: 200\n"
TOP = "users:\n  local: {file: config/users.yaml}\n"


def world(**settings: Any) -> World:
    return World(**{"sources": SourceLimits(), **settings})


# --- scanners ---------------------------------------------------------------------------------------------------------

AGENTS = [
    "friendly-scanner", "Friendly-Scanner 1.0", "sipvicious", "sipcli/v1.8", "VaxSIPUserAgent/3.1", "sundayddr",
    "pplsip", "friendly-request", "eyeBeam (sipcli)",
]  # fmt: skip


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "INVITE", "SUBSCRIBE", "BYE"])
@pytest.mark.parametrize("agent", AGENTS)
def test_a_scanner_hears_nothing_and_is_counted(agent: str, method: str) -> None:
    stage = world()
    peer = stage.peer("x", STRANGER)
    peer.ask(method, "sip:100@example.com", f"User-Agent: {agent}", to="<sip:100@example.com>")
    stage.run(40.0)
    assert peer.heard == []
    assert stage.engine.counters["scanner"] == 1
    assert not any(stage.leftovers().values())


@pytest.mark.parametrize("place", ["From", "To"])
@pytest.mark.parametrize("written", ['"sipvicious" <sip:100@1.1.1.1>', "<sip:nm@nm>", "<SIP:100@1.1.1.1>"])
def test_a_scanner_is_told_by_its_addresses(place: str, written: str) -> None:
    stage = world()
    peer = stage.peer("x", STRANGER)
    peer.ask("OPTIONS", "sip:example.com", **{"sender" if place == "From" else "to": written})
    stage.run()
    assert peer.heard == []


@pytest.mark.parametrize("agent", ["Yealink SIP-T46S", "Zoiper rev.1", "PolycomVVX", "mysipcliente", "Linphone/5.1"])
def test_a_phone_is_no_scanner(agent: str) -> None:
    stage = world()
    peer = stage.peer("x", STRANGER)
    peer.ask("OPTIONS", "sip:10.0.0.1", f"User-Agent: {agent}")
    stage.run()
    assert peer.heard == ["200"]


def test_a_trusted_source_may_call_itself_what_it_likes() -> None:
    stage = world()
    peer = stage.peer("x", "127.0.0.5")
    peer.ask("OPTIONS", "sip:10.0.0.1", "User-Agent: friendly-scanner")
    stage.run()
    assert peer.heard == ["200"]


def test_without_words_nobody_is_a_scanner() -> None:
    stage = world(scanners=((), ()))
    peer = stage.peer("x", STRANGER)
    peer.ask("OPTIONS", "sip:10.0.0.1", "User-Agent: friendly-scanner")
    stage.run()
    assert peer.heard == ["200"]


def test_what_a_scanner_garbles_gets_silence_too() -> None:
    stage = world()
    peer = stage.peer("x", STRANGER)
    octets = peer.ask("OPTIONS", "sip:example.com", "User-Agent: sipcli/v1", send=False).octets
    peer.send(octets.replace(b"CSeq: 1 ", b"CSeq: one "))
    stage.run()
    assert peer.heard == []
    assert stage.engine.counters["scanner"] == 1


def test_a_scanner_that_goes_on_is_banned() -> None:
    stage = world()
    peer = stage.peer("x", STRANGER)
    for number in range(1_200):
        peer.ask("OPTIONS", f"sip:{number}@example.com", "User-Agent: friendly-scanner")
    stage.run()
    assert [one.name for one in stage.engine.admission.banned(stage.now)] == [STRANGER]
    assert peer.heard == []


def test_many_agents_cost_no_memory() -> None:
    scanners, stage = Scanners(), world()
    peer = stage.peer("x", STRANGER)
    peer.ask("OPTIONS", "sip:example.com", "User-Agent: x")
    for number in range(3_000):
        assert not scanners._judge(b"User-Agent: phone %d" % number)
    assert len(scanners._judged) <= 1_000


# --- failed logins ----------------------------------------------------------------------------------------------------


def login(peer: Peer, stage: World, user: str, password: str) -> int:
    """Ask, answer the challenge; the last status, 0 for silence."""
    call_id = peer.word()
    first = peer.ask("INVITE", "sip:bob@example.com", call_id=call_id)
    stage.run()
    if not first.statuses:
        return 0
    header = sign(first.final, user, password, algorithm="MD5", uri="sip:bob@example.com")
    second = peer.ask("INVITE", "sip:bob@example.com", header, call_id=call_id, cseq=2)
    stage.run()
    return second.statuses[-1] if second.statuses else 0


def guarded(tmp_path: Path, **limits: Any) -> World:
    users = {"local": LocalUsers({"alice": Secret("secret")})}
    return World(program(tmp_path, AUTH, TOP), users=users, sources=SourceLimits(**limits), digest=("MD5",))


@pytest.mark.parametrize("user", ["alice", "nobody"])
def test_failed_logins_are_a_ban(tmp_path: Path, user: str) -> None:
    stage = guarded(tmp_path, failures=5, failures_ban=100.0)
    peer, other = stage.peer("x", STRANGER), stage.peer("y", OFFICE)
    assert [login(peer, stage, user, f"guess{n}") for n in range(5)] == [407] * 5
    login(peer, stage, user, "guess")
    assert login(peer, stage, "alice", "secret") == 0
    assert stage.engine.admission.bans == {"passwords": 1}
    assert is_banned(stage.engine.admission, STRANGER, stage.now)
    assert login(other, stage, "alice", "secret") == 200, "nobody else is locked out"
    stage.run(101.0)
    assert login(peer, stage, "alice", "secret") == 200, "a ban ends"


def test_an_office_where_somebody_has_logged_in_may_fail_more_often(tmp_path: Path) -> None:
    stage = guarded(tmp_path, failures=2)
    peer = stage.peer("x", OFFICE)
    assert login(peer, stage, "alice", "secret") == 200
    assert [login(peer, stage, "bob", "wrong") for _ in range(20)] == [407] * 20
    assert not stage.engine.admission.bans


def test_failures_are_forgotten_and_0_is_no_bound() -> None:
    for limits, bans in ((SourceLimits(failures=2), 1), (SourceLimits(failures=0), 0)):
        admission = Admission(limits, lambda host: False)
        source = admission.source_of(STRANGER, 0.0)
        for at in (0.0, 1.0, FAILURES_LAST + 1, FAILURES_LAST + 2):
            admission.failed(source, at)
        assert not admission.bans
        admission.failed(source, FAILURES_LAST + 3)
        assert admission.bans.total() == bans


# --- bans -------------------------------------------------------------------------------------------------------------


def ban(admission: Admission, host: str, now: float) -> None:
    source = admission.source_of(host, now)
    for _ in range(admission.limits.failures + 1):
        admission.failed(source, now)


def is_banned(admission: Admission, host: str, now: float) -> bool:
    """As connections ask."""
    return admission.source_of(host, now).banned_until > now


def test_bans_are_bounded_and_the_oldest_ends_first() -> None:
    admission = Admission(SourceLimits(failures=1), lambda host: False)
    hosts = [f"198.51.{number >> 8}.{number & 255}" for number in range(MOST_BANS + 50)]
    for host in hosts:
        ban(admission, host, 0.0)
    assert len(admission.banned(1.0)) == MOST_BANS
    assert not is_banned(admission, hosts[49], 1.0) and is_banned(admission, hosts[50], 1.0)
    assert admission.admit(hosts[49], 1.0) is not None and admission.admit(hosts[50], 1.0) is None


def test_a_ban_holds_when_the_table_of_sources_forgets() -> None:
    admission = Admission(SourceLimits(failures=1, strangers=10**9), lambda host: False)
    ban(admission, STRANGER, 0.0)
    for number in range(60_000):
        admission.source_of(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1.0)
    assert admission.admit(STRANGER, 2.0) is None


def test_all_of_a_network_is_banned_and_nobody_who_is_trusted() -> None:
    admission = Admission(SourceLimits(failures=1), lambda host: host.startswith("127."))
    ban(admission, "2001:db8::7", 0.0)
    assert is_banned(admission, "2001:db8::9", 1.0), "the /64 is one source"
    assert not is_banned(admission, OFFICE, 1.0) and not is_banned(admission, "2001:db8::7", 700.0)
    ban(admission, "127.0.0.1", 0.0)
    assert not is_banned(admission, "127.0.0.1", 1.0)


def test_bans_survive_a_reload_but_of_those_that_are_trusted_now() -> None:
    trusted: set[str] = set()
    admission = Admission(SourceLimits(failures=1), trusted.__contains__)
    ban(admission, STRANGER, 0.0)
    ban(admission, OFFICE, 0.0)
    trusted.add(OFFICE)
    admission.forget()
    assert admission.admit(STRANGER, 1.0) is None
    assert admission.admit(OFFICE, 1.0) is not None and not is_banned(admission, OFFICE, 1.0)


# --- who may register -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "status"), [(STRANGER, 403), ("127.0.0.9", 200)])
def test_a_register_that_no_flow_takes_is_for_trusted_sources(host: str, status: int) -> None:
    stage = world(open_registrar=False)
    ask = stage.peer("bob", host).register("bob@example.com")
    stage.run()
    assert ask.statuses == [status]
    assert stage.engine.counters["register.closed"] == (status == 403)


def test_one_that_a_flow_takes_is_the_flows(tmp_path: Path) -> None:
    flow = tmp_path / "register.flow.yaml"
    flow.write_text("flowlang: 1\nflows: {r: {on: register, when: request.to.user == 'bob', do: [register]}}\n")
    stage = World(load_program([flow])[0], open_registrar=False)
    for user, status in (("bob", 200), ("carol", 403)):
        ask = stage.peer(user, STRANGER).register(f"{user}@example.com")
        stage.run()
        assert ask.statuses == [status]


def test_one_user_registers_so_many_addresses(tmp_path: Path) -> None:
    """A flow that does not compare the user with the address."""
    flow = tmp_path / "register.flow.yaml"
    do = "[auth: {realm: example.com, users: local}, register]"
    flow.write_text(f"flowlang: 1\n{TOP}flows: {{r: {{on: register, do: {do}}}}}\n")
    users = {"local": LocalUsers({"alice": Secret("secret")})}
    limits = CoreLimits(addresses_per_user=3)
    stage = World(load_program([flow])[0], users=users, limits=limits, digest=("MD5",))
    peer = stage.peer("alice", OFFICE)

    def register(number: int, cseq: int, expires: int = 3600) -> int:
        first = peer.register(f"a{number}@example.com", "", expires, cseq=cseq)
        stage.run()
        line = sign(first.final, "alice", "secret", algorithm="MD5")
        second = peer.register(f"a{number}@example.com", "", expires, line, cseq=cseq + 1)
        stage.run()
        return second.statuses[-1]

    assert [register(number, 1) for number in range(5)] == [200, 200, 200, 403, 403]
    assert register(0, 3) == 200, "a refresh is none more"
    assert stage.location.refused["user"] == 2
    assert register(1, 5, 0) == 200 and register(7, 1) == 200, "one that is gone makes room"


def test_users_are_remembered_in_bounds() -> None:
    addresses = UserAddresses(1, lambda aor: True)
    for number in range(50_100):
        assert addresses.take(f"u{number}", "a@b")
    assert len(addresses) == 50_000


# --- who calls (RFC 3325) ---------------------------------------------------------------------------------------------

PAI, OWN = "P-Asserted-Identity: <sip:boss@example.com>", "X-Orchestrator-Media: answer"
GATEWAY = "203.0.113.50"


def with_gateway(tmp_path: Path, identity: str | None, trust: str = "127.0.0.0/8", host: str = GATEWAY) -> World:
    flow = tmp_path / "g.flow.yaml"
    flow.write_text(
        f"flowlang: 1\ngateways: {{telco: {{uri: 'sip:{host}'}}}}\nflows:\n"
        "  out: {on: invite, when: call.target.user == 'out', do: [relay: {gateways: telco}]}\n"
        "  boss: {on: invite, when: (call.user ?? '') == 'boss', do: [reply: 486]}\n"
    )
    program, _ = load_program([flow])
    if identity is not None:
        program.resources.gateways["telco"]["identity"] = identity  # type: ignore[index]
    return World(program, trust=(ip_network(trust),))


@pytest.mark.parametrize(
    ("identity", "trust", "believed"),
    [
        (None, "127.0.0.0/8", False), (None, "203.0.113.50/32", True), ("trusted", "127.0.0.0/8", True),
        ("untrusted", "203.0.113.50/32", False), ("untrusted", "127.0.0.0/8", False),
    ],
)  # fmt: skip
def test_a_gateway_is_believed_as_its_entry_says(tmp_path: Path, identity: str, trust: str, believed: bool) -> None:
    stage = with_gateway(tmp_path, identity, trust)
    bob = stage.peer("bob", "10.0.0.3")
    bob.register("bob@example.com")
    ask = stage.peer("telco", GATEWAY).ask("INVITE", "sip:bob@example.com", PAI, OWN)
    stage.run()
    assert (486 in ask.statuses) is believed
    if not believed:
        (invite,) = bob.requests("INVITE")
        assert not {b"p-asserted-identity", b"x-orchestrator-media"} & set(invite.names)


@pytest.mark.parametrize("identity", ["trusted", "untrusted"])
def test_a_gateway_with_a_host_name_is_believed_as_its_entry_says(tmp_path: Path, identity: str) -> None:
    trust = "127.0.0.0/8" if identity == "trusted" else f"{GATEWAY}/32"
    stage = with_gateway(tmp_path, identity, trust, "telco.example")
    stage.on_job = lambda job: GATEWAY
    telco, bob = stage.peer("telco", GATEWAY), stage.peer("bob", "10.0.0.3")
    bob.register("bob@example.com")
    stage.peer("pbx", "127.0.0.9").ask("INVITE", "sip:out@example.com", PAI, "Privacy: id")
    stage.run()
    (invite,) = telco.requests("INVITE")
    assert (b"p-asserted-identity" in invite.names) is (identity == "trusted")
    ask = telco.ask("INVITE", "sip:bob@example.com", PAI)
    stage.run()
    assert (486 in ask.statuses) is (identity == "trusted")


@pytest.mark.parametrize(("identity", "told"), [("trusted", True), (None, False), ("untrusted", False)])
def test_a_private_identity_is_told_those_who_are_believed(tmp_path: Path, identity: str | None, told: bool) -> None:
    stage = with_gateway(tmp_path, identity)
    telco = stage.peer("telco", GATEWAY)
    stage.peer("pbx", "127.0.0.9").ask("INVITE", "sip:out@example.com", PAI, "Privacy: id")
    stage.run()
    (invite,) = telco.requests("INVITE")
    assert (b"p-asserted-identity" in invite.names) is told


@pytest.mark.parametrize("identity", ["trusted", None])
@pytest.mark.parametrize(("sender", "asserted"), [("alice", "alice"), ("anonymous", "alice"), ("boss", "alice")])
def test_who_has_logged_in_is_asserted_to_those_who_are_believed(
    tmp_path: Path, sender: str, asserted: str, identity: str | None
) -> None:
    flow = tmp_path / "g.flow.yaml"
    do = "[auth: {realm: example.com, users: local}, relay: {gateways: telco}]"
    gateways = f"gateways: {{telco: {{uri: 'sip:{GATEWAY}'}}}}\n"
    flow.write_text(f"flowlang: 1\n{TOP}{gateways}flows: {{g: {{on: invite, do: {do}}}}}\n")
    program, _ = load_program([flow])
    if identity:
        program.resources.gateways["telco"]["identity"] = identity  # type: ignore[index]
    users = {"local": LocalUsers({"alice": Secret("secret")})}
    stage = World(program, users=users, digest=("MD5",), assert_identity=True)
    alice, telco = stage.peer("alice", OFFICE), stage.peer("telco", GATEWAY)
    claims = ("P-Preferred-Identity: <sip:boss@example.com>", PAI)
    whom = {"sender": f"<sip:{sender}@example.com>;tag=1", "call_id": "c"}
    first = alice.ask("INVITE", "sip:out@example.com", *claims, **whom)
    stage.run()
    line = sign(first.final, "alice", "secret", algorithm="MD5", uri="sip:out@example.com")
    alice.ask("INVITE", "sip:out@example.com", line, *claims, **whom, cseq=2)
    stage.run()
    (invite,) = telco.requests("INVITE")
    wanted = [f"<sip:{asserted}@example.com>".encode()] if identity else []
    assert invite.get_all(b"p-asserted-identity") == wanted
    assert b"p-preferred-identity" not in invite.names
