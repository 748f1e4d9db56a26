"""TLS as octets: handshakes, names by RFC 5922, files that change. On sockets: test_tls_connections.py."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tls_files import write_authority, write_pair

from orchestrator.errors import OrchestratorError
from orchestrator.runtime.streams.tls import Certificates, TlsCipher, TlsFiles, identities


def certificates(folder: Path, *names: str, **more: object) -> Certificates:
    """Those of a peer with these names that believes the authority of the tests."""
    folder.mkdir(exist_ok=True)
    certificate, key = write_pair(folder, *names)
    return Certificates(TlsFiles(certificate, key, write_authority(folder / "ca.pem"), **more))  # type: ignore[arg-type]


def shake_hands(client: TlsCipher, server: TlsCipher) -> None:
    """Carry octets until nobody has any left."""
    for _ in range(10):
        there = client.take()
        server.receive(there) if there else None
        back = server.take()
        client.receive(back) if back else None
        if not there and not back:
            return
    raise AssertionError("it has no end")


def pair(ours: Certificates, theirs: Certificates, name: str = "example.com") -> tuple[TlsCipher, TlsCipher]:
    client, server = ours.cipher(name), theirs.cipher(None)
    shake_hands(client, server)
    return client, server


def test_octets_in_both_directions(tmp_path: Path) -> None:
    both = certificates(tmp_path, "example.com")
    client, server = pair(both, both)
    assert client.open and server.open and client.admits("example.com") == ""
    assert server.receive(client.send(b"INVITE")) == b"INVITE"
    assert client.receive(server.send(b"SIP/2.0 200")) == b"SIP/2.0 200"


def test_octet_at_a_time(tmp_path: Path) -> None:
    both = certificates(tmp_path, "example.com")
    client, server = pair(both, both)
    sent = client.send(b"INVITE" * 1000)
    assert b"".join(server.receive(sent[i : i + 1]) for i in range(len(sent))) == b"INVITE" * 1000


def test_a_farewell_ends_it(tmp_path: Path) -> None:
    both = certificates(tmp_path, "example.com")
    client, server = pair(both, both)
    last = client.send(b"BYE")
    client.close()
    assert server.receive(last + client.take()) == b"BYE"
    assert server.ended and server.why == ""


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"OPTIONS sip:a SIP/2.0\r\n\r\n", b"\0" * 100, b"\x16\x03\x01\x00\x05hello"]
)
def test_what_is_no_tls_ends_it(noise: bytes, tmp_path: Path) -> None:
    server = certificates(tmp_path, "example.com").cipher(None)
    assert server.receive(noise) == b""
    assert server.ended and server.why.startswith("tls ")
    assert server.receive(b"more") == b"" and not server.open


def test_octets_that_were_tampered_with_end_it(tmp_path: Path) -> None:
    both = certificates(tmp_path, "example.com")
    client, server = pair(both, both)
    sent = bytearray(client.send(b"INVITE"))
    sent[-1] ^= 1
    assert server.receive(bytes(sent)) == b"" and server.ended and "bad record mac" in server.why


def test_versions_that_are_not_spoken_are_refused(tmp_path: Path) -> None:
    old = certificates(tmp_path / "old", "example.com", versions=("1.2",))
    new = certificates(tmp_path / "new", "example.com", versions=("1.3",))
    client, server = pair(old, new)
    assert client.ended and server.ended and not server.open


# --- who the peer is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "asked", "admitted"),
    [
        (("example.com",), "example.com", True),
        (("example.com",), "EXAMPLE.COM", True),
        (("example.com",), "example.com.", True),
        (("example.com",), "sip.example.com", False),
        (("*.example.com",), "sip.example.com", False),
        (("sip.example.com",), "example.com", False),
        (("sip:example.com",), "example.com", True),
        (("sip:example.com", "host7.example.net"), "host7.example.net", False),
        (("sip:alice@example.com", "example.net"), "example.com", False),
        (("sip:alice@example.com", "example.net"), "example.net", True),
        (("sips:example.com",), "example.com", False),
        (("https://example.com",), "example.com", False),
        (("192.0.2.7",), "192.0.2.7", True),
        (("192.0.2.7",), "192.0.2.8", False),
        (("2001:db8::7",), "[2001:db8:0::7]", True),
        (("other.example",), "", True),
    ],
)
def test_names_by_rfc_5922(names: tuple[str, ...], asked: str, admitted: bool, tmp_path: Path) -> None:
    both = certificates(tmp_path, *names)
    client, _ = pair(both, both, asked)
    assert client.open
    assert (client.admits(asked) == "") is admitted


def test_a_common_name_counts_where_there_is_nothing_else() -> None:
    subject = ((("commonName", "Example.com"),),)
    assert identities({"subject": subject}) == {"example.com"}
    assert identities({"subject": subject, "subjectAltName": (("email", "a@example.org"),)}) == set()


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    theirs = certificates(tmp_path, "example.com")
    certificate, key = write_pair(tmp_path, "example.com")
    ours = Certificates(TlsFiles(certificate, key))  # believes whom this machine believes
    client, _ = pair(ours, theirs)
    assert client.ended and "certificate verify failed" in client.why


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    ours = certificates(tmp_path, "example.com")
    certificate, key = write_pair(tmp_path, "example.com", days=-1)
    client, _ = pair(ours, Certificates(TlsFiles(certificate, key)))
    assert client.ended and "certificate verify failed" in client.why


def test_where_nobody_asks_any_certificate_will_do(tmp_path: Path) -> None:
    certificate, key = write_pair(tmp_path, "other.example")
    ours = Certificates(TlsFiles(certificate, key, verify_server="none"))
    client, server = pair(ours, ours, "example.com")
    assert client.open and server.open and client.admits("example.com") == ""


@pytest.mark.parametrize(
    ("verify", "shows", "opens", "proved"),
    [
        ("none", True, True, False),
        ("optional", True, True, True),
        ("optional", False, True, False),
        ("required", True, True, True),
        ("required", False, False, False),
    ],
)
def test_certificates_of_those_who_connect(verify: str, shows: bool, opens: bool, proved: bool, tmp_path: Path) -> None:
    theirs = certificates(tmp_path, "example.com", verify=verify)
    ours = theirs if shows else Certificates(TlsFiles(ca=tmp_path / "ca.pem"))
    _, server = pair(ours, theirs)
    assert (server.open and not server.ended, server.proved) == (opens, proved)


# --- files that change ------------------------------------------------------------------------------------------------


def shown(certificates: Certificates) -> str:
    """The name that a new connection is shown."""
    client, _ = pair(certificates, certificates, "")
    (name,) = identities(client._tls.getpeercert())
    return name


def test_a_new_certificate_is_for_new_connections(tmp_path: Path) -> None:
    both = certificates(tmp_path, "old.example")
    client, server = pair(both, both, "old.example")
    assert not both.look()
    write_pair(tmp_path, "new.example")
    assert both.look() and both.trouble == ""
    assert shown(both) == "new.example"
    assert server.receive(client.send(b"still here")) == b"still here"
    assert not both.look()


@pytest.mark.parametrize("broken", ["certificate.pem", "key.pem", "ca.pem"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_bad_files_change_nothing(broken: str, content: bytes | None, tmp_path: Path) -> None:
    both = certificates(tmp_path, "old.example")
    good = (tmp_path / broken).read_bytes()
    (tmp_path / broken).unlink() if content is None else (tmp_path / broken).write_bytes(content)
    assert both.look()
    assert broken in both.trouble
    assert shown(both) == "old.example"
    (tmp_path / broken).write_bytes(good)
    os.utime(tmp_path / broken, ns=(1, 1))  # whatever the resolution of the file system
    assert both.look() and both.trouble == ""


def test_a_certificate_whose_key_comes_later(tmp_path: Path) -> None:
    both = certificates(tmp_path, "old.example")
    (tmp_path / "next").mkdir()
    certificate, key = write_pair(tmp_path / "next", "new.example")
    certificate.replace(tmp_path / "certificate.pem")
    assert both.look() and "is not that of the certificate" in both.trouble
    assert shown(both) == "old.example"
    key.replace(tmp_path / "key.pem")
    assert both.look() and both.trouble == ""
    assert shown(both) == "new.example"


def test_an_expired_certificate_is_complained_of(tmp_path: Path) -> None:
    both = certificates(tmp_path, "example.com")
    assert both.complaint(both.expires - 1) == ""
    assert "has expired" in both.complaint(both.expires)
    first = both.expires
    write_pair(tmp_path, "example.com", days=60)
    assert both.look() and both.expires > first
    assert Certificates(TlsFiles(ca=tmp_path / "ca.pem")).complaint(1e12) == ""


def test_what_cannot_be_used_at_the_start_is_said(tmp_path: Path) -> None:
    certificate, key = write_pair(tmp_path, "example.com")
    for files, words in [
        (TlsFiles(tmp_path / "none.pem", key), "cannot read .*none.pem: No such file"),
        (TlsFiles(certificate, tmp_path / "none.pem"), "cannot read .*none.pem: No such file"),
        (TlsFiles(key, key), "are no certificate and key in PEM"),
        (TlsFiles(certificate, key, key), "there is no certificate in .*key.pem"),
    ]:
        with pytest.raises(OrchestratorError) as refused:
            Certificates(files)
        assert re.search(words, str(refused.value))


def test_an_encrypted_key_is_said_to_be_one(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    certificate, key = write_pair(tmp_path, "example.com")
    private = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(OrchestratorError, match="is encrypted"):
        Certificates(TlsFiles(certificate, key))
