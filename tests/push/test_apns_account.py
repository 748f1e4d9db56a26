"""The files of an Apple account: what is wrong with them, and what connections get of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h2", reason="the extra `push` is not installed")

from apns_server import ApnsServer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from tls_files import authority, write_authority, write_pair

from orchestrator.errors import InputError
from orchestrator.packages.push_service import PushDown
from orchestrator.push.apns import Apns, ApnsAccount
from orchestrator.push.supervisor import account_problems
from orchestrator.settings import read_settings
from orchestrator.settings.values import Address
from orchestrator.sip.push import Push, PushAddress

APP = "com.example.app"
HOST = Address("127.0.0.1", 1)
PUSH = Push("apns", PushAddress("apns", "", "", app=APP, tokens={"voip": "ab"}), "call", 20.0, "sip:bob@example.com")


def pem_of(key: Any, password: bytes = b"") -> bytes:
    secret = BestAvailableEncryption(password) if password else NoEncryption()
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))


def write_apple(folder: Path, uid: str = APP, begins: int = -10, ends: int = 10) -> tuple[Path, Path]:
    """A certificate as Apple makes them, of the authority of the tests; days from today."""
    key, (issuer, signer) = ec.generate_private_key(ec.SECP256R1()), authority()
    names = [x509.NameAttribute(NameOID.COMMON_NAME, f"Apple Push Services: {uid}")]
    if uid:
        names.append(x509.NameAttribute(NameOID.USER_ID, uid))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
        .sign(signer, SHA256())
    )
    paths = folder / "apns.pem", folder / "apns-key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(pem_of(key))
    return paths


def signed(key: Any) -> ApnsAccount:
    return ApnsAccount(HOST, HOST, key=key, key_id="ABC123DEFG", team="DEF123GHIJ")


def certified(certificate: Any, key: Any = None, **more: Any) -> ApnsAccount:
    return ApnsAccount(HOST, HOST, certificate=certificate, certificate_key=key, **more)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_as_apple_gives_it_is_right(tmp_path: Path) -> None:
    pem = pem_of(ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "k.p8").write_bytes(pem)
    assert Apns(signed(tmp_path / "k.p8")).check() == []
    assert Apns(signed(SecretStr(pem.decode()))).check() == []


def test_the_name_that_apple_gives_a_key_file_is_held_against_its_id(tmp_path: Path) -> None:
    right, other = tmp_path / "AuthKey_ABC123DEFG.p8", tmp_path / "AuthKey_ZZZ123DEFG.p8"
    for file in (right, other):
        file.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1())))
    assert Apns(signed(right)).check() == []
    (problem,) = Apns(signed(other)).check()
    assert problem == f"{other} is the key ZZZ123DEFG by its name, but key_id: is ABC123DEFG"


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        (None, "cannot read {}: No such file or directory"),
        (b"", "{} is no private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "{} is no private key in PEM"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "{} is not a P-256 key"),
        (pem_of(rsa.generate_private_key(65_537, 2_048)), "{} is not a P-256 key"),
        (pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret"), "{} has a password"),
    ],
)
def test_what_is_wrong_with_a_key(tmp_path: Path, pem: bytes | None, told: str) -> None:
    file = tmp_path / "k.p8"
    if pem is not None:
        file.write_bytes(pem)
    (problem,) = Apns(signed(file)).check()
    assert problem.startswith(told.format(file))
    with pytest.raises(PushDown) as down:
        Apns(signed(file)).send(PUSH)
    assert (down.value.reason, down.value.final) == (problem, True)
    if pem:
        (problem,) = Apns(signed(SecretStr(pem.decode()))).check()
        assert problem.startswith(told.format("the PEM in the environment"))


# --- certificates -----------------------------------------------------------------------------------------------------


def test_a_certificate_as_apple_makes_it_is_right(tmp_path: Path) -> None:
    certificate, key = write_apple(tmp_path)
    assert Apns(certified(certificate, key)).check() == []
    both = certificate.read_bytes() + key.read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    assert Apns(certified(tmp_path / "both.pem")).check() == []
    assert Apns(certified(SecretStr(both.decode()))).check() == []


def test_what_is_wrong_with_a_certificate(tmp_path: Path) -> None:
    certificate, key = write_apple(tmp_path)
    other = tmp_path / "other.pem"
    other.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1())))
    locked = tmp_path / "locked.pem"
    locked.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret"))

    def problem(account: ApnsAccount) -> str:
        (found,) = Apns(account).check()
        return found

    assert problem(certified(tmp_path / "no.pem")) == f"cannot read {tmp_path}/no.pem: No such file or directory"
    assert problem(certified(key)).startswith(f"{key} has no certificate in PEM: a .p12 file becomes PEM with  openssl")
    told = f"{certificate} has no key: say certificate_key:, or put both into one PEM file"
    assert problem(certified(certificate)) == told
    assert problem(certified(certificate, key, ca=key)) == f"{key} has no certificate in PEM"
    for wrong in (other.read_bytes(), pem_of(rsa.generate_private_key(65_537, 2_048))):
        (tmp_path / "mixed.pem").write_bytes(certificate.read_bytes() + wrong)
        told = f"the key in {tmp_path}/mixed.pem is not that of its certificate"
        assert problem(certified(tmp_path / "mixed.pem")) == told
    assert problem(certified(certificate, other)) == f"{other} is not the key of {certificate}"
    assert problem(certified(certificate, locked)) == f"{locked} has a password: store it without one"
    assert problem(certified(certificate, key, ca=tmp_path / "ca.pem")).startswith(f"cannot read {tmp_path}/ca.pem: No")


@pytest.mark.parametrize(
    ("begins", "ends", "told"), [(-10, -1, "has expired on "), (1, 10, "is valid only from "), (-1, 1, "")]
)
def test_the_times_of_a_certificate(tmp_path: Path, begins: int, ends: int, told: str) -> None:
    certificate, key = write_apple(tmp_path, begins=begins, ends=ends)
    found = Apns(certified(certificate, key)).check()
    assert [told in problem for problem in found] == ([True] if told else [])


# --- of the configuration ---------------------------------------------------------------------------------------------


def test_a_certificate_pushes_to_its_app(tmp_path: Path) -> None:
    for uid in (APP, f"{APP}.voip"):
        certificate, key = write_apple(tmp_path, uid)
        entry = f"apns: {{certificate: {certificate}, certificate_key: {key}}}"
        chosen = read_settings("o.yml", f"push: {{services: {{{entry}}}}}", {}).push.services["apns"]
        assert chosen.service.apps == (APP,)
        assert account_problems(chosen) == []


def test_a_certificate_of_another_app_is_refused_at_its_place(tmp_path: Path) -> None:
    certificate, _ = write_apple(tmp_path)
    text = f"push: {{services: {{apns: {{certificate: {certificate}, apps: com.example.other}}}}}}"
    with pytest.raises(InputError) as refused:
        read_settings("o.yml", text, {})
    (found,) = refused.value.diagnostics
    assert found.message == f"the certificate is for {APP}, not for com.example.other"
    assert found.help == f"write apps: [{APP}]"
    assert found.column == text.index("com.example.other") + 1


def test_a_certificate_that_cannot_be_read_keeps_no_server_from_starting(tmp_path: Path) -> None:
    text = f"push: {{services: {{apns: {{certificate: {tmp_path}/no.pem}}}}}}"
    chosen = read_settings("o.yml", text, {}).push.services["apns"]
    assert chosen.service.apps == ()
    assert account_problems(chosen) == [f"cannot read {tmp_path}/no.pem: No such file or directory"]


# --- connections with a certificate -----------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApnsServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    ca = write_authority(folder / "ca.pem")
    made = ApnsServer(write_pair(folder, "127.0.0.1"), ca)
    yield made
    made.close()


def test_a_certificate_opens_the_connection(server: ApnsServer, tmp_path: Path) -> None:
    certificate, key = write_apple(tmp_path)
    here = Address("127.0.0.1", server.port)
    ca = tmp_path / "server" / "ca.pem"
    apns = Apns(ApnsAccount(here, here, certificate=certificate, certificate_key=key, ca=ca))
    assert apns.send(PUSH).outcome == "sent"
    (request,) = server.requests
    assert "authorization" not in request.headers
    assert f"Apple Push Services: {APP}" in request.connection.peer
    write_apple(tmp_path, "com.example.renewed")
    apns.send(PUSH)
    assert len(server.connections) == 1, "one that is open stays"
    server.connections[0].go_away(2**31 - 1)
    apns.send(PUSH)
    apns.send(PUSH)
    assert "com.example.renewed" in server.requests[-1].connection.peer
    apns.stop()


def test_an_expired_certificate_is_told_by_the_other_side(server: ApnsServer, tmp_path: Path) -> None:
    certificate, key = write_apple(tmp_path, ends=-1)
    here = Address("127.0.0.1", server.port)
    ca = tmp_path / "server" / "ca.pem"
    apns = Apns(ApnsAccount(here, here, certificate=certificate, certificate_key=key, ca=ca))
    with pytest.raises(PushDown):
        apns.send(PUSH)
    apns.stop()
