"""Masking of messages that were made to cost time or to hide a secret."""

from __future__ import annotations

import pytest

from orchestrator.sip.masking import MOST, as_long, masked

HEAD = b"INVITE sip:bob@example.com SIP/2.0\r\n"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"Contact: <sip:a;xpn-prid=pn-prid=tok>", b"Contact: <sip:a;xpn-prid=***>"),
        (b'Authorization: Digest nonce="', b"Authorization: Digest nonce=***"),
        (b'Authorization: Digest nonce = "n" , response="r"', b'Authorization: Digest nonce = "***" , response="***"'),
        (
            b"authorization:Digest a\r\n\tresponse=r\r\nX: nonce=r",
            b"authorization:Digest a\r\n\tresponse=***\r\nX: nonce=r",
        ),
        (b"Authorization: Basic abc\r\n def\r\nX: y", b"Authorization: Basic ***\r\nX: y"),
        (
            b"Proxy-Authenticate: Digest a=r, nonce=n\nX: nonce=n",
            b"Proxy-Authenticate: Digest a=r, nonce=***\nX: nonce=n",
        ),
        (b"v=0\r\nk=clear:secret\r\na=ice-pwd:p", b"v=0\r\nk=***\r\na=ice-pwd:***"),
    ],
)
def test_what_is_masked(written: bytes, told: bytes) -> None:
    assert masked(HEAD + written) == HEAD + told
    assert len(masked(HEAD + written, as_long)) == len(HEAD + written)


@pytest.mark.parametrize(
    "field",
    [
        b"Authorization: Digest nonce=a\r\n",
        b"Contact: <sip:a;pn-prid=a>\r\n",
        b"a=ice-pwd:a\r\n",
        b"Authorization: B a\r\n",
    ],
)
def test_a_message_full_of_secrets_is_all_secret(field: bytes) -> None:
    token = b"Contact: <sip:a;pn-prid=token>\r\n"
    many = HEAD + token + field * (MOST + 1) + token
    made = masked(many, as_long)
    assert len(made) == len(many) and made.startswith(HEAD) and b"token" not in made
    few = masked(HEAD + token + field * 20 + token, as_long)
    assert b"pn-prid=*****" in few and b"token" not in few
