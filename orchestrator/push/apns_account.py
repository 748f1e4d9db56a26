"""An account of Apple's push service: its files, the tokens that its key signs, the connections that its certificate
opens, and what is wrong with them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time
from typing import Any, Final, Protocol

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from gevent import ssl

RENEW: Final = 40 * 60.0
"""Seconds after which a token is made anew: Apple takes none older than an hour."""
OFTEN: Final = 20 * 60.0
"""Seconds between two tokens at least: Apple answers 429 TooManyProviderTokenUpdates to more."""
JUMP: Final = 60.0
"""Seconds that the wall clock may go beside the monotonic one until its last token has a wrong time."""


_TO_PEM: Final = "a .p12 file becomes PEM with  openssl pkcs12 -in apns.p12 -out apns.pem -nodes"
_FOREIGN_KEY: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""What OpenSSL says of a key that is not the certificate's; the last of one of another kind."""
_NAMED_BY_APPLE: Final = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8")


class Host(Protocol):
    """`settings.values.Address`."""

    host: str
    port: int


class Secret(Protocol):
    """`pydantic.SecretStr`: the PEM itself, from the environment."""

    def get_secret_value(self) -> str: ...


Source = Path | Secret


class BadAccount(ValueError):
    """What is wrong with a key or a certificate."""


@dataclass(frozen=True, slots=True)
class ApnsAccount:
    """As `push: services:` has it: `key` with `key_id` and `team`, or `certificate`."""

    host: Host
    sandbox_host: Host
    key: Source | None = None
    key_id: str | None = None
    team: str | None = None
    certificate: Source | None = None
    certificate_key: Source | None = None
    sandbox: str = "auto"
    ca: Path | None = None

    def problems(self) -> Iterator[str]:
        """What is wrong with its files."""
        try:
            if self.key is not None:
                signing_key(self.key)
                yield from _other_id(self.key, self.key_id)
            else:
                assert self.certificate is not None
                yield from _times(self.certificate)
            make_context(self)
        except BadAccount as bad:
            yield str(bad)


def name_of(source: Source) -> str:
    return str(source) if isinstance(source, Path) else "the PEM in the environment"


def read_pem(source: Source) -> bytes:
    """Raises BadAccount."""
    if not isinstance(source, Path):
        return source.get_secret_value().encode()
    try:
        return source.read_bytes()
    except OSError as error:
        raise BadAccount(f"cannot read {source}: {error.strerror}") from None


def signing_key(source: Source) -> EllipticCurvePrivateKey:
    """The key of a `.p8` file. Raises BadAccount: ES256 needs a private key on the curve P-256."""
    name, pem = name_of(source), read_pem(source)
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise BadAccount(f"{name} has a password: store it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadAccount(f"{name} is no private key in PEM: take the .p8 file as Apple gives it") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise BadAccount(f"{name} is not a P-256 key: take the .p8 file as Apple gives it")
    return key


def certificate_of(source: Source) -> x509.Certificate:
    """Raises BadAccount."""
    pem = read_pem(source)
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise BadAccount(f"{name_of(source)} has no certificate in PEM: {_TO_PEM}") from None


def bundle_of(source: Source) -> str:
    """The app that Apple has made a certificate for: its UID, without `.voip`; '' for none. Raises BadAccount."""
    found = certificate_of(source).subject.get_attributes_for_oid(NameOID.USER_ID)
    return str(found[0].value).removesuffix(".voip") if found else ""


def _other_id(key: Source, key_id: str | None) -> Iterator[str]:
    """Apple names the file of a key by its id."""
    named = _NAMED_BY_APPLE.fullmatch(key.name) if isinstance(key, Path) else None
    if named and named[1] != key_id:
        yield f"{key} is the key {named[1]} by its name, but key_id: is {key_id}"


def _times(source: Source) -> Iterator[str]:
    certificate, now = certificate_of(source), datetime.now(UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends <= now:
        yield f"{name_of(source)} has expired on {ends:%Y-%m-%d}: renew it on Apple's developer pages"
    elif begins > now:
        yield f"{name_of(source)} is valid only from {begins:%Y-%m-%d}"


def make_context(account: ApnsAccount) -> ssl.SSLContext:
    """What connections are made with. Raises BadAccount."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        if account.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(account.ca)
    except ssl.SSLError:
        raise BadAccount(f"{account.ca} has no certificate in PEM") from None
    except OSError as error:
        raise BadAccount(f"cannot read {account.ca}: {error.strerror or error}") from None
    if account.certificate is not None:
        key = account.certificate_key
        pem = read_pem(account.certificate) + b"\n" + (read_pem(key) if key is not None else b"")
        _load(context, pem, name_of(account.certificate), name_of(key) if key is not None else "")
    return context


def _load(context: ssl.SSLContext, pem: bytes, name: str, key: str) -> None:
    """OpenSSL reads files only; this one is nowhere on a disk."""
    descriptor = os.memfd_create("apns")
    try:
        os.write(descriptor, pem)

        def no_password() -> str:
            raise BadAccount(f"{key or name} has a password: store it without one")

        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=no_password)
    except ssl.SSLError as error:
        if error.reason in _FOREIGN_KEY:
            told = f"{key} is not the key of {name}" if key else f"the key in {name} is not that of its certificate"
            raise BadAccount(told) from None
        if not key and b"PRIVATE KEY-----" not in pem:
            raise BadAccount(f"{name} has no key: say certificate_key:, or put both into one PEM file") from None
        what = f"{name} and {key} are" if key else f"{name} is"
        raise BadAccount(f"{what} no certificate with its key in PEM") from None
    finally:
        os.close(descriptor)


class Contexts:
    """The context of an account, made anew when one of its files has changed."""

    def __init__(self, account: ApnsAccount) -> None:
        self._account = account
        files = (account.certificate, account.certificate_key, account.ca)
        self._files = [file for file in files if isinstance(file, Path)]
        self._made: tuple[list[Any], ssl.SSLContext] | None = None

    def __call__(self) -> ssl.SSLContext:
        """Raises BadAccount."""
        try:
            state = [(file.stat().st_mtime_ns, file.stat().st_size) for file in self._files]
        except OSError as error:
            raise BadAccount(f"cannot read {error.filename}: {error.strerror}") from None
        if self._made is None or self._made[0] != state:
            self._made = state, make_context(self._account)
        return self._made[1]


class ProviderTokens:
    """The token that Apple knows a team by, made anew before it is too old, and not too often."""

    def __init__(
        self, account: ApnsAccount, clock: Callable[[], float] = monotonic, wall: Callable[[], float] = time
    ) -> None:
        self.made = 0
        self._account = account
        self._clock, self._wall = clock, wall
        self._token = ""
        self._at = self._stated = 0.0
        """When it was made, by each clock."""

    def current(self) -> str:
        """Raises BadAccount: the key cannot be used."""
        if not self._token or self._clock() - self._at >= RENEW:
            self._make()
        return self._token

    def refused(self, token: str) -> bool:
        """Apple does not take this one: it is too old, or from the future. Returns whether there is another one.
        Raises BadAccount."""
        if token == self._token:
            if not self._jumped and self._clock() - self._at < OFTEN:
                return False
            self._make()
        return True

    @property
    def _jumped(self) -> bool:
        """Whether somebody has set the wall clock since then: the token has a time that was wrong."""
        return abs((self._wall() - self._stated) - (self._clock() - self._at)) > JUMP

    def _make(self) -> None:
        account = self._account
        assert account.key is not None
        now = self._wall()
        claims, headers = {"iss": account.team, "iat": int(now)}, {"kid": account.key_id}
        self._token = jwt.encode(claims, signing_key(account.key), "ES256", headers)
        self._at, self._stated = self._clock(), now
        self.made += 1
