"""Where we depart from the RFCs, and know it."""

from __future__ import annotations

DEPARTURES: tuple[tuple[str, str], ...] = (
    ("RFC 3261 §16.10", "a CANCEL outside of dialogs is answered 487 at once instead of after the branches' answers"),
    ("RFC 3261 §16.10, last paragraph", "a CANCEL that matches no INVITE is answered 481, not forwarded statelessly"),
    ("RFC 3261 §16.7 step 5", "a 2xx that comes after we sent a failure upstream is acknowledged and ended by us"),
    ("RFC 3261 §16.7 step 6", "a non-INVITE request nobody answers is not answered 408 (which RFC 4320 §4.2 forbids)"),
    (
        "RFC 3261 §16.4, §16.6 step 6",
        "a Route without lr is followed like one with it: strict routers are gone",
    ),
    (
        "RFC 3261 §16.6 step 7",
        "a request inside a dialog goes to where a phone behind NAT was seen, not where its Request-URI says",
    ),
    (
        "RFC 3261 §22.2",
        "a gateway's challenge to an INVITE is answered with the gateway's own account, under the same CSeq",
    ),
    ("RFC 3261 §16.6", "From is rewritten where a flow says so, and put back in the answers"),
    (
        "RFC 3261 §18.1.1",
        "a request over 1300 octets for a phone that registered over UDP leaves by UDP, and is fragmented there",
    ),
    (
        "RFC 3261 §16.2, §17.2.1",
        "a source that has not proved its address gets provisional responses only when it repeats its INVITE, failures "
        "repeated less often than it repeats the INVITE, and no more octets than half as many again as it sent",
    ),
    (
        "RFC 3261 §16.7 step 5, RFC 6026 §7.1",
        "of a 2xx that the callee repeats such a source gets the 1st, 2nd, 4th and 8th copy and two for each INVITE it "
        "has sent, but only the 1st when two of its calls stand unacknowledged; a repeated INVITE gets the 2xx again",
    ),
    (
        "RFC 8760 §2.4",
        "MD5 alone is offered by default: phones that know nothing else may give up when SHA-256 stands beside it",
    ),
    (
        "RFC 8599 §5.6.1",
        "phones that name their push service as before the RFC (pn-type, app-id, pn-tok) are woken, too, and told so",
    ),
    (
        "RFC 8599 §5.6.1.1",
        "Feature-Caps in a REGISTER leave the phone to the proxy that says so only where they name the phone's service",
    ),
    ("RFC 8599 §5.6.1.2", "the answer to a query does not repeat what Feature-Caps in the REGISTER have said"),
    (
        "RFC 8599 §5.6.2",
        "a phone whose push has failed gets the request where it registered last, and the caller no 480 at once: what "
        "is wrong with the service says nothing about the phone, which may be awake",
    ),
    ("RFC 3261 §18.2.2", "a maddr in a Via is ignored: answers go to where the request came from and nowhere else"),
)
"""Known differences from the RFCs, each with its place; a test shows each of them."""
