"""TLS (RFC 3261 §26.3.1, RFC 5922): the certificates of the server, and one connection's cipher. No sockets here:
OpenSSL works on octets in memory, so a handshake waits for nobody.

The name of a peer that we connect to is checked by RFC 5922 §7: a `sip:` URI without a user in its certificate names a
domain, a DNS name does where there is no such URI, and neither stands for more than itself: no wildcards.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography.x509 import load_pem_x509_certificate

from orchestrator.errors import OrchestratorError

VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_READ: Final = 65_536
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files, in PEM, and what is asked of others."""

    certificate: Path | None = None
    """Ours, then those that vouch for it. Without it nobody can connect to us by TLS."""
    key: Path | None = None
    """None: in the file of the certificate."""
    ca: Path | None = None
    """Whom we believe; None for whom this machine believes."""
    verify: str = "none"
    """A certificate of those who connect to us: `none` asked for, `optional`, `required`."""
    verify_server: str = "required"
    """The same of those that we connect to, who must prove their name: `none` or `required`."""
    versions: tuple[str, ...] = ("1.2", "1.3")

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.certificate, self.key, self.ca) if path is not None)


class Certificates:
    """What connections begin with. `look` takes changed files for new connections; those that stand keep what they
    have.

    Raises:
        OrchestratorError: the files cannot be used.
    """

    def __init__(self, settings: TlsFiles) -> None:
        self._settings = settings
        self.trouble = ""
        """Why files that have changed are not used, '' when they are."""
        self.loads = 0
        """How often they have been loaded."""
        self.expires = 0.0
        """When our certificate is not valid any more, in seconds since the epoch; 0 without one."""
        self._stamp = self._stamps()
        self._take()

    def look(self) -> bool:
        """Load the files if they have changed; whether something was done. What cannot be used leaves everything as it
        is, with `trouble` saying why. May wait for a disk."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._take()
        except (OrchestratorError, OSError, ValueError) as error:
            self.trouble = str(error)
        else:
            self.trouble = ""
        return True

    def complaint(self, wall: float) -> str:
        """What is wrong with what is in use at this time (seconds since the epoch), '' for nothing."""
        if self.trouble or not 0.0 < self.expires <= wall:
            return self.trouble
        return f"sip: tls: the certificate in {self._settings.certificate} has expired"

    def cipher(self, name: str | None) -> TlsCipher:
        """For one connection: to a peer with this name, '' when nobody asks for a proof; None when it came to us."""
        if name is None:
            assert self._server is not None
            return TlsCipher(self._server, None)
        return TlsCipher(self._client, name)

    def _take(self) -> None:
        certificate = self._settings.certificate
        server = self._new_server() if certificate is not None else None
        self._client = self._new_client()
        self._server = server
        self.expires = _end_of(certificate) if certificate is not None else 0.0
        self.loads += 1

    def _new_server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        context.verify_mode = _VERIFY[self._settings.verify]
        if context.verify_mode is not ssl.CERT_NONE:
            self._trust(context, ssl.Purpose.CLIENT_AUTH)
        return context

    def _new_client(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # RFC 5922 has rules of its own
        self._load(context)
        context.verify_mode = _VERIFY[self._settings.verify_server]
        if context.verify_mode is not ssl.CERT_NONE:
            self._trust(context, ssl.Purpose.SERVER_AUTH)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        """Our certificate, and what both sides have in common."""
        settings = self._settings
        versions = [VERSIONS[version] for version in settings.versions]
        context.minimum_version, context.maximum_version = min(versions), max(versions)
        context.options |= ssl.OP_NO_RENEGOTIATION  # a client could have us work for nothing
        if settings.certificate is None:
            return
        try:
            context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
        except (OSError, ValueError) as error:
            files = settings.certificate, settings.key or settings.certificate
            raise OrchestratorError(_why_unusable(error, *files)) from None

    def _trust(self, context: ssl.SSLContext, purpose: ssl.Purpose) -> None:
        ca = self._settings.ca
        if ca is None:
            context.load_default_certs(purpose)
            return
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise OrchestratorError(_why_no_authority(error, ca)) from None

    def _stamps(self) -> Stamp:
        return tuple(map(_stamp, self._settings.files))


class TlsCipher:
    """One connection: octets of the peer to plain ones, and back. Never raises; `ended` says that it is over."""

    __slots__ = ("ended", "open", "why", "_from_peer", "_name", "_to_peer", "_tls")

    def __init__(self, context: ssl.SSLContext, name: str | None) -> None:
        """`name`: whom we connect to, None where a peer has connected to us."""
        self.open = False
        self.ended = False
        self.why = ""
        self._name = name
        self._from_peer, self._to_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        shown = name if name and not _is_address(name) else None
        self._tls = context.wrap_bio(self._from_peer, self._to_peer, server_side=name is None, server_hostname=shown)
        if name is not None:
            self._shake_hands()

    @property
    def proved(self) -> bool:
        """The peer has shown a certificate that somebody we believe vouches for."""
        return self.open and bool(self._tls.getpeercert())

    def receive(self, octets: bytes) -> bytes:
        """The plain octets in what the peer has sent."""
        if self.ended:
            return b""
        self._from_peer.write(octets)
        if not self.open:
            self._shake_hands()
            if not self.open:
                return b""
        plain = []
        try:
            while True:
                piece = self._tls.read(_READ)
                if not piece:
                    self.ended = True  # close_notify
                    break
                plain.append(piece)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, OSError) as error:
            self._fail(error)
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def take(self) -> bytes:
        """Octets for the peer since the last time."""
        return self._to_peer.read() if self._to_peer.pending else b""

    def send(self, message: bytes) -> bytes:
        """The octets that carry these plain ones, and what was to be taken before them."""
        try:
            self._tls.write(message)
        except (ssl.SSLError, OSError) as error:
            self._fail(error)
        return self._to_peer.read()

    def close(self) -> None:
        """Say that nothing more comes."""
        self.ended = True
        if self.open:
            try:
                self._tls.unwrap()
            except (ssl.SSLError, OSError, ValueError):
                pass  # it wants the peer's farewell, too

    def admits(self, name: str) -> str:
        """Why the peer is not the one with this name; '' when it is, or nobody asks."""
        certificate = self._tls.getpeercert() if name else None
        if not certificate:  # verify_server is off, else the handshake would have failed
            return ""
        return "" if _plain(name) in identities(certificate) else "tls wrong name"

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
            self.open = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, OSError) as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.ended = True
        reason = getattr(error, "reason", None) or "error"
        self.why = f"tls {reason.lower().replace('_', ' ')}"


def identities(certificate: Any) -> frozenset[str]:
    """Domains, in small letters, that a certificate (as `getpeercert` gives it) stands for (RFC 5922 §7.1), and
    addresses."""
    names = tuple(certificate.get("subjectAltName", ()))
    domains = frozenset(_domains(names))
    if not domains:
        domains = frozenset(value.lower() for kind, value in names if kind == "DNS")
    if not names:
        parts = (part for parts in certificate.get("subject", ()) for part in parts)
        domains = frozenset(value.lower() for kind, value in parts if kind == "commonName")
    return domains | {_plain(value) for kind, value in names if kind == "IP Address"}


def _plain(name: str) -> str:
    """A name as it is compared: small letters, no final dot, an address in its one form."""
    try:
        return str(ip_address(name.strip("[]")))
    except ValueError:
        return name.rstrip(".").lower()


def _domains(names: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Those of `sip:` URIs that are no user's."""
    for kind, value in names:
        scheme, _, rest = value.partition(":")
        if kind == "URI" and scheme.lower() == "sip" and "@" not in rest:
            yield rest.partition(";")[0].partition("?")[0].partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _end_of(certificate: Path) -> float:
    """When the first certificate of a file is not valid any more, in seconds since the epoch."""
    return load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc.timestamp()


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def _no_password() -> str:
    """A server has nobody to ask; OpenSSL would ask the terminal."""
    raise ValueError("the key is encrypted")


def _why_unusable(error: OSError | ValueError, certificate: Path, key: Path) -> str:
    """In words for who wrote the configuration."""
    for path in (certificate, key):
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as trouble:
            return f"sip: tls: cannot read {path}: {trouble.strerror}"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"sip: tls: the key in {key} is not that of the certificate in {certificate}"
    if isinstance(error, ValueError):
        return f"sip: tls: the key in {key} is encrypted; write one without a password"
    return f"sip: tls: {certificate} and {key} are no certificate and key in PEM"


def _why_no_authority(error: OSError, ca: Path) -> str:
    if isinstance(error, ssl.SSLError):
        return f"sip: tls: there is no certificate in {ca}"
    return f"sip: tls: cannot read {ca}: {error.strerror}"
