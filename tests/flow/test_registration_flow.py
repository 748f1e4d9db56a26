"""The registration flow as shipped, alone and among all the others; the specification's own beside it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from orchestrator.core.users import LocalUsers
from orchestrator.flow.loader import load_program
from orchestrator.settings.users import load_users
from orchestrator.sip.digest import Secret
from orchestrator.testing.peer import Ask, Peer
from orchestrator.testing.world import World

ROOT = Path(__file__).parents[2]
FLOWS = ROOT / "flows"
SPECIFIED = Path(__file__).parent / "specification" / "flows" / "6_register.flow.yaml"
OUTSIDE = "203.0.113.7"


class Registrar:
    def __init__(self, *paths: Path) -> None:
        program, warnings = load_program(paths)
        assert warnings == []
        users = LocalUsers.of({"alice": Secret("wonder"), "bob": Secret("builder")})
        self.world = World(program, users={"local": users, "callers": users}, secrets={"PUSH_URL": "", "PUSH_KEY": ""})
        self.logged: list[str] = []
        self.world.engine.host.on_log = lambda run, effect: self.logged.append(effect.text)
        self._cseq = 0

    def register(self, peer: Peer, aor: str, *headers: str) -> Ask:
        self._cseq += 1
        ask = peer.register(aor, "", 3600, *headers, cseq=self._cseq)
        self.world.run()
        return ask

    def log_in(self, peer: Peer, user: str, password: str, aor: str = "") -> Ask:
        aor = aor or f"{user}@example.com"
        first = self.register(peer, aor)
        if first.statuses != [401]:
            return first
        value = first.final.get_all(b"www-authenticate")[1].decode()  # SHA-256
        nonce = value.split('nonce="')[1].split('"')[0]
        secret, about = (sha256(text.encode()).hexdigest() for text in
                         (f"{user}:example.com:{password}", "REGISTER:sip:example.com"))  # fmt: skip
        response = sha256(f"{secret}:{nonce}:00000001:c:auth:{about}".encode()).hexdigest()
        return self.register(
            peer,
            aor,
            f'Authorization: Digest username="{user}", realm="example.com", nonce="{nonce}", uri="sip:example.com", '
            f'response="{response}", algorithm=SHA-256, qop=auth, nc=00000001, cnonce="c"',
        )


EACH = pytest.mark.parametrize(
    "path",
    [
        pytest.param(FLOWS / "registration.flow.yaml", id="shipped"),
        pytest.param(FLOWS, id="all shipped"),
        pytest.param(SPECIFIED, id="specified"),
    ],
)


@EACH
def test_a_phone_from_outside_needs_its_password(path: Path) -> None:
    registrar = Registrar(path)
    phone = registrar.world.peer("alice", OUTSIDE)
    assert registrar.register(phone, "alice@example.com").statuses == [401]
    assert registrar.log_in(phone, "alice", "guess").statuses == [401]
    assert registrar.log_in(phone, "alice", "wonder").statuses == [200]
    assert registrar.log_in(phone, "alice", "wonder", aor="bob@example.com").statuses == [403]


@pytest.mark.parametrize("source", ["127.0.0.1", "10.1.2.3", "172.31.0.9", "192.168.1.20"])
def test_make_run_takes_the_phones_at_home_as_they_are(source: str) -> None:
    """With the files as they are shipped, no user in the table."""
    registrar = Registrar(FLOWS)
    registrar.world.reload_site(users={"local": load_users(ROOT / "config" / "users.yaml", {})})
    phone = registrar.world.peer("anybody", source)
    assert registrar.register(phone, "anybody@example.com").statuses == [200]
    stranger = registrar.world.peer("stranger", OUTSIDE)
    assert registrar.log_in(stranger, "anybody", "").statuses == [401]


def test_ten_failures_close_an_address_for_ten_minutes() -> None:
    registrar = Registrar(FLOWS / "registration.flow.yaml")
    phone, neighbour = registrar.world.peer("alice", OUTSIDE), registrar.world.peer("bob", "203.0.113.8")
    for _ in range(9):
        assert registrar.log_in(phone, "alice", "guess").statuses == [401]
        registrar.world.run(5)
    assert registrar.logged == []
    registrar.log_in(phone, "alice", "guess")
    assert registrar.logged == [f"{OUTSIDE} failed ten times in a row, last for alice@example.com"]
    refused = registrar.log_in(phone, "alice", "wonder")
    assert refused.statuses == [503] and refused.final.get(b"retry-after") == b"600"
    assert registrar.log_in(neighbour, "bob", "builder").statuses == [200], "others are not held off"
    registrar.world.run(590)
    assert registrar.log_in(phone, "alice", "wonder").statuses == [503], "trying does not make it longer"
    registrar.world.run(11)
    assert registrar.log_in(phone, "alice", "wonder").statuses == [200]


def test_failures_that_are_far_apart_are_nobodys_attack() -> None:
    registrar = Registrar(FLOWS / "registration.flow.yaml")
    phone = registrar.world.peer("alice", OUTSIDE)
    for _ in range(25):
        assert registrar.log_in(phone, "alice", "guess").statuses == [401]
        registrar.world.run(61)
    assert registrar.logged == []
    assert len(registrar.world.engine.flows.runs) == 0


def test_nobody_is_locked_out_by_requests_that_are_only_challenged() -> None:
    registrar = Registrar(FLOWS / "registration.flow.yaml")
    phone = registrar.world.peer("alice", OUTSIDE)
    for _ in range(30):
        assert registrar.register(phone, "alice@example.com").statuses == [401]
    assert registrar.log_in(phone, "alice", "wonder").statuses == [200]


def test_the_specified_lockout_tells_of_ten_failures() -> None:
    registrar = Registrar(SPECIFIED)
    phone = registrar.world.peer("alice", OUTSIDE)
    for _ in range(10):
        registrar.log_in(phone, "alice", "guess")
    assert registrar.logged == [f"{OUTSIDE} failed 10 times in a row"]
