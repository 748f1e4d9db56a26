"""`orchestrator certificate`: a certificate of its own making, to try TLS and WSS with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERTIFICATE, KEY = "certificate.pem", "key.pem"
HERE = ("localhost", "127.0.0.1", "::1")
DAYS = 397
"""Browsers refuse what is valid for longer."""


def self_signed(names: Iterable[str], days: int, now: datetime) -> tuple[bytes, bytes]:
    """A certificate for these host names and addresses that is signed by its own key, and the key (P-256), as PEM.

    Raises ValueError: a name cannot be one of a host.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Orchestrator, for trying")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode())


def _host(name: str) -> str:
    """`192.0.2.1:5060` is what `sip.advertise` takes, too."""
    host, colon, port = name.rpartition(":")
    bare = host if colon and port.isdigit() and (":" not in host or host.startswith("[")) else name
    return bare.strip("[]")


@click.command(short_help="Make a self-signed certificate, to try TLS and WSS with.")
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", "names", multiple=True, metavar="HOST", help="A name or address of the server; repeatable.")
@click.option("--days", type=click.IntRange(1, 3650), default=DAYS, show_default=True, help="How long it is valid.")
def command(folder: Path, names: Sequence[str], days: int) -> None:
    """Write certificate.pem and key.pem into FOLDER (default: this one), for sip.tls in the configuration.

    The certificate is for localhost and each --name. Nobody has signed it: phones and browsers trust it only when
    you tell them to. Use one of a certificate authority for anything but trying. Files that exist are kept.
    """
    paths = folder / CERTIFICATE, folder / KEY
    there = [path for path in paths if path.exists()]
    if len(there) == 2:
        click.echo(f"{paths[0]} exists and is kept", err=True)
        return
    if there:
        raise click.ClickException(f"{there[0]} exists, but not its partner; nothing was written")
    hosts = list(dict.fromkeys([*map(_host, filter(None, names)), *HERE]))
    try:
        written = self_signed(hosts, days, datetime.now(UTC))
    except ValueError as error:
        raise click.ClickException(f"cannot make a certificate for {', '.join(hosts)}: {error}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[1].touch(mode=0o600)
        for path, octets in zip(paths, written, strict=True):
            path.write_bytes(octets)
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}") from None
    click.echo(f"{paths[0]} and {paths[1].name} written, for {', '.join(hosts)}", err=True)
