"""`orchestrator certificate`: what it writes is what `ssl` takes, and nothing is overwritten."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.certificate import command


def make(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def shake_hands(folder: Path, name: str) -> None:
    """TLS between two ends of this process, with the certificate as the only one that is trusted."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    client = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert ends[0].version()


@pytest.mark.parametrize("name", ["sip.example.com", "192.0.2.7", "2001:db8::7", "localhost", "127.0.0.1"])
def test_it_is_for_the_names_asked_for_and_this_machine(tmp_path: Path, name: str) -> None:
    done = make(
        str(tmp_path / "tls"), "--name", "sip.example.com", "--name", "192.0.2.7:5060", "--name", "[2001:db8::7]"
    )
    assert done.exit_code == 0, done.output
    shake_hands(tmp_path / "tls", name)
    assert (tmp_path / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600


def test_it_is_for_no_other_name(tmp_path: Path) -> None:
    make(str(tmp_path), "--name", "sip.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path, "other.example.com")


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    make(str(tmp_path))
    first = (tmp_path / "certificate.pem").read_bytes(), (tmp_path / "key.pem").read_bytes()
    again = make(str(tmp_path), "--name", "other.example.com")
    assert again.exit_code == 0
    assert "exists and is kept" in again.output
    assert ((tmp_path / "certificate.pem").read_bytes(), (tmp_path / "key.pem").read_bytes()) == first


def test_half_of_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("mine")
    done = make(str(tmp_path))
    assert done.exit_code == 1
    assert "exists, but not its partner" in done.output
    assert not (tmp_path / "certificate.pem").exists()


def test_a_name_that_is_none(tmp_path: Path) -> None:
    done = make(str(tmp_path), "--name", "a" * 64)
    assert done.exit_code == 1
    assert "cannot make a certificate for" in done.output


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = make(str(tmp_path / "file" / "tls"))
    assert done.exit_code == 1
    assert "cannot write to" in done.output
