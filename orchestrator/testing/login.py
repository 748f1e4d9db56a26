"""A phone's answer to a digest challenge (RFC 3261 §22, RFC 7616), worked out apart from the code that checks it."""

from __future__ import annotations

import re
from hashlib import md5, new, sha256

from orchestrator.sip.message import Response

_FIELDS = ((b"www-authenticate", b"Authorization"), (b"proxy-authenticate", b"Proxy-Authorization"))
_PARAMETER = re.compile(r'([a-zA-Z-]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')


def answer_to(response: Response, user: str, password: str, uri: bytes) -> bytes:
    """The header that answers the first challenge of a 401 or 407, b'' where there is none."""
    if response.status not in (401, 407):
        return b""
    for asked, answered in _FIELDS:
        challenge = response.get(asked)
        if challenge is not None and challenge.lower().startswith(b"digest"):
            method = response.cseq_method.decode()
            return answered + b": " + _digest(challenge.decode(), user, password, method, uri.decode()).encode()
    return b""


def _digest(challenge: str, user: str, password: str, method: str, uri: str) -> str:
    given = {found[1].lower(): found[2] or found[3] or "" for found in _PARAMETER.finditer(challenge)}
    realm, nonce, algorithm = given.get("realm", ""), given.get("nonce", ""), given.get("algorithm", "MD5")
    first = _hash(algorithm, f"{user}:{realm}:{password}")
    second = _hash(algorithm, f"{method}:{uri}")
    parts = [f'username="{user}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"', f"algorithm={algorithm}"]
    if "auth" in re.split(r"[\s,]+", given.get("qop", "")):
        count, ours = "00000001", "0a4f113b"
        response = _hash(algorithm, f"{first}:{nonce}:{count}:{ours}:auth:{second}")
        parts += ["qop=auth", f"nc={count}", f'cnonce="{ours}"']
    else:
        response = _hash(algorithm, f"{first}:{nonce}:{second}")
    if "opaque" in given:
        parts.append(f'opaque="{given["opaque"]}"')
    return f'Digest {", ".join(parts)}, response="{response}"'


def _hash(algorithm: str, text: str) -> str:
    octets = text.encode()
    if algorithm.upper() == "SHA-256":
        return sha256(octets).hexdigest()
    if algorithm.upper() == "SHA-512-256":
        return new("sha512_256", octets).hexdigest()
    return md5(octets, usedforsecurity=False).hexdigest()
