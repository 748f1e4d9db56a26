"""GRUUs: addresses that lead to one phone of a user, whoever calls them from anywhere (RFC 5627).

A phone that says `Supported: gruu` and names its `+sip.instance` is given two with the 200 to its REGISTER. The public
one is its address of record with the instance in `gr`. The temporary one tells nobody who it is: the address, the
instance and the Call-ID of the registration stand enciphered in its user part, so that nothing is kept, and it ends
when the phone registers with another Call-ID (§3.2). Each 200 has another one; all of a registration hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final
from urllib.parse import quote

from orchestrator.sip.binding import Binding
from orchestrator.sip.topology import Veil
from orchestrator.sip.uri import Uri

_TEMPORARY: Final = b"tgruu."
_SEAL: Final = b"gruu"
_USER_SAFE: Final = "-_.!~*'()&=+$,;?/"
_PARAM_SAFE: Final = "-_.!~*'()[]/:&+$"
_LONGEST: Final = 512
"""Characters of address and instance together; a URN with a UUID has 45. Both GRUUs have them, so longer ones would
make the 200 to each phone of the address too large."""


@dataclass(frozen=True, slots=True)
class Gruu:
    """What a GRUU means: the phone with this `instance` of the address `aor`, a temporary one while its registration
    has this hash of its Call-ID."""

    aor: str
    instance: str
    call: bytes = b""

    def is_of(self, binding: Binding) -> bool:
        """Whether it leads to this binding."""
        return binding.instance == self.instance and (not self.call or self.call == _hash(binding.call_id))

    @property
    def uri(self) -> bytes:
        """The public form."""
        return b"sip:%b;gr=%b" % (_escaped(self.aor), quote(self.instance, safe=_PARAM_SAFE).encode())


def parameters(veil: Veil, binding: Binding) -> bytes:
    """Both, as parameters of its Contact in a 200; b'' for one without an instance (§5.1) or with one that is
    too long."""
    instance = binding.instance
    if not instance or "\n" in binding.aor + instance or len(binding.aor + instance) > _LONGEST:
        return b""
    meant = (binding.aor.encode(), instance.encode(), _hash(binding.call_id), b"%d" % binding.cseq)
    domain = _escaped(binding.aor).rpartition(b"@")[2]
    temporary = b"sip:%b%b@%b;gr" % (_TEMPORARY, veil.hide(_SEAL, meant), domain)
    return b';pub-gruu="%b";temp-gruu="%b"' % (Gruu(binding.aor, instance).uri, temporary)


def read(veil: Veil, uri: Uri, aor: str) -> Gruu | None:
    """What a URI of a domain of ours means, whose address of record would be `aor`; None when it is no GRUU of ours."""
    if not uri.is_sip or b"gr" not in uri.params:
        return None
    instance = uri.params[b"gr"]
    if instance:
        return Gruu(aor, instance.decode("utf-8", "replace"))
    if not uri.user.startswith(_TEMPORARY):
        return None
    meant = veil.show(_SEAL, uri.user.removeprefix(_TEMPORARY))
    if meant is None or len(meant) != 4:
        return None
    return Gruu(meant[0].decode("utf-8", "replace"), meant[1].decode("utf-8", "replace"), meant[2])


def _hash(call_id: bytes) -> bytes:
    return blake2b(call_id, digest_size=6).hexdigest().encode()


def _escaped(aor: str) -> bytes:
    user, at, host = aor.rpartition("@")
    return (quote(user, safe=_USER_SAFE) + at + host).encode()
