"""Bindings and the rules for changing them.

A REGISTER asks for changes to the bindings of one address of record (RFC 3261 §10.3). `decide` turns what stands and
what is asked into a list of `Change`s or refuses the request as a whole; nothing is half done.

Which contact is "the same" decides whether a phone rings once or twice. RFC 3261 compares URIs, but a phone that wakes
up on another network comes back from another port. So the device is asked first: `+sip.instance` with `reg-id`
(RFC 5626 §6), then its push address (RFC 8599 §5.3), in whichever dialect it is written (`sip.push`), and the URI last
(RFC 3261 §19.1.4). A phone without an instance that has a new push token is known by its URI and Call-ID.

Times are seconds since the epoch and come in as `now`. Whoever drives the table is expected to read the wall clock once
and to add monotonic time to it, so that a clock set back or forth neither expires all phones nor keeps one for ever.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from orchestrator.errors import MalformedMessage, SipError
from orchestrator.sip.masking import masked
from orchestrator.sip.push import PushAddress, address_of, asks_for_push
from orchestrator.sip.uri import Uri, parse_uri, uris_equal

MAX_CONTACTS = 10
"""Bindings per address of record unless told otherwise: more is a leak or an attack (one REGISTER may list 600)."""


@dataclass(slots=True)
class Binding:
    """One contact of an address of record. Never changed once it stands in a table; a refresh puts a new one."""

    aor: str
    """`user@host`, unescaped, host in lower case."""
    contact: bytes
    """The URI as registered, without header parameters."""
    expires_at: float
    """Seconds since the epoch."""
    q: float = 1.0
    call_id: bytes = b""
    cseq: int = 0
    path: tuple[bytes, ...] = ()
    """Path values in the order of the REGISTER (RFC 3327)."""
    received: tuple[str, int] | None = None
    """Source address when it differs from the contact's: a phone behind NAT."""
    transport: str = "udp"
    user_agent: str = ""
    instance: str | None = None
    """`+sip.instance` without its quotes and angle brackets."""
    reg_id: int | None = None
    registered_at: float = 0.0
    extra: Mapping[str, str] | None = None
    """What the flow that saved it keeps with it (`register: {extra: …}`), None when that is nothing."""
    source: str = ""
    """Whom it counts for (`sip.admission.source_name`): whence the REGISTER came."""
    parameters: bytes = b""
    """The Contact's parameters but for `expires`, as each 200 to a REGISTER gives them back: `;q=0.7;reg-id=1`."""
    point: str = ""
    """Name of our point that the REGISTER came to (`sip.points.Point.name`): calls leave by it. '' for an unknown
    one."""
    connection: int = 0
    """The connection it came over, 0 for none, and when that has ended. Not stored: no connection outlives us."""
    woken_upstream: bool = False
    """A proxy between the phone and us wakes it (RFC 8599 §5.6.1.1)."""

    @property
    def device(self) -> str:
        """The phone and its flow, as far as it tells: `+sip.instance` and `reg-id` (RFC 5626 §6); '' for none."""
        if self.instance is None:
            return ""
        return self.instance if self.reg_id is None else f"{self.instance};{self.reg_id}"

    @property
    def key(self) -> tuple[bytes, str]:
        """What tells it apart from the other bindings of its address of record: two phones in two private networks may
        have the same contact."""
        return self.contact, self.device

    @property
    def uri(self) -> str:
        return self.contact.decode("utf-8", "replace")

    @property
    def shown(self) -> str:
        """The URI for the log: whoever knows a push token can wake the phone."""
        return masked(self.contact).decode("utf-8", "replace")

    @property
    def mobile(self) -> bool:
        """It can be woken by a push (RFC 8599): the contact names a push service."""
        return asks_for_push(self.contact) and bool(self.pn_provider or self._uri_parameter(b"pn-type"))

    @property
    def push_address(self) -> PushAddress | None:
        """Where a push reaches it, as its contact says; None for nowhere, and where somebody else wakes it."""
        return None if self.woken_upstream else _push_address(self.contact)

    @property
    def wakes_itself(self) -> bool:
        """It registers again in time without being woken (`+sip.pnsreg`, RFC 8599 §4.1.4)."""
        return b"+sip.pnsreg" in self.parameters.lower()

    @property
    def pn_provider(self) -> str | None:
        return self._uri_parameter(b"pn-provider")

    @property
    def pn_param(self) -> str | None:
        return self._uri_parameter(b"pn-param")

    @property
    def pn_prid(self) -> str | None:
        return self._uri_parameter(b"pn-prid")

    def _uri_parameter(self, name: bytes) -> str | None:
        if not asks_for_push(self.contact):
            return None
        uri = _parsed(self.contact)
        value = uri.params.get(name) if uri is not None else None
        return None if value is None else value.decode("utf-8", "replace")


ChangeKind = Literal["added", "refreshed", "removed", "replaced", "expired"]


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a table. `added` and `refreshed` bindings stand afterwards, the others are gone.

    A phone that moved gives two: `refreshed` with its new contact and `previous`, and `replaced` with the old one.
    """

    kind: ChangeKind
    binding: Binding
    previous: Binding | None = None

    @property
    def stands(self) -> bool:
        return self.kind in ("added", "refreshed")


# --- which contact is the same ----------------------------------------------------------------------------------------


def same_contact(a: Binding, b: Binding) -> bool:
    """Do two bindings of one address of record lead to the same phone? One instance may have several flows; one push
    token is of one app on one phone, even if that has taken a new instance."""
    if a.instance is not None and b.instance is not None:
        return a.reg_id == b.reg_id if a.instance == b.instance else _same_push_token(a, b)
    if a.contact == b.contact:
        return True
    first, second = _parsed(a.contact), _parsed(b.contact)
    if first is None or second is None:
        return False
    return _same_push_address(a, b) or uris_equal(first, second) or _has_new_token(a, b)


def _same_push_address(a: Binding, b: Binding) -> bool:
    first = _push_address(a.contact)
    second = _push_address(b.contact) if first is not None else None
    return first is not None and second is not None and first.is_same_phone(second)


def _same_push_token(a: Binding, b: Binding) -> bool:
    """Whether two instances are one app on one phone, which has been installed anew."""
    if not asks_for_push(a.contact):
        return False
    address = _push_address(a.contact)
    return address is not None and address.tells_phones_apart and _same_push_address(a, b)


def _has_new_token(a: Binding, b: Binding) -> bool:
    """Whether they differ only in the token for the same app, and the Call-ID is the same: phones use one for all their
    REGISTERs (RFC 3261 §10.2.4). Two phones in two private networks may have the same contact."""
    if a.call_id != b.call_id or not a.call_id:
        return False
    before, after = _push_address(a.contact), _push_address(b.contact)
    if before is None or after is None or (before.service, before.app) != (after.service, after.app):
        return False
    first, second = _parsed(_without_push(a.contact)), _parsed(_without_push(b.contact))
    return first is not None and second is not None and uris_equal(first, second)


_each_push_parameter = re.compile(rb";(?:pn-|app-id)[^;?]*", re.IGNORECASE)


def _without_push(contact: bytes) -> bytes:
    at = contact.rfind(b"@") + 1
    return contact[:at] + _each_push_parameter.sub(b"", contact[at:])


@lru_cache(maxsize=2048)
def _push_address(contact: bytes) -> PushAddress | None:
    uri = _parsed(contact) if asks_for_push(contact) else None
    return None if uri is None else address_of(uri)


def _is_other_device(a: Binding, b: Binding) -> bool:
    return a.instance is not None and b.instance is not None and (a.instance, a.reg_id) != (b.instance, b.reg_id)


def _same_uri(a: Binding, b: Binding) -> bool:
    """RFC 3261 §19.1.4; of two devices the URIs are not compared."""
    if _is_other_device(a, b):
        return False
    first, second = _parsed(a.contact), _parsed(b.contact)
    return a.contact == b.contact or (first is not None and second is not None and uris_equal(first, second))


def _meant(wanted: Binding, standing: Iterable[Binding], kept: Collection[bytes], removal: bool) -> list[Binding]:
    """The standing bindings that one Contact value of a REGISTER means.

    A removal means its URI and nothing else, or a phone that has moved would take out the binding it has just made;
    only one with `reg-id` may name its flow under another URI (RFC 5626 §6). Any other value means its device under
    whatever URI, but not under one that the same REGISTER asks to keep (`kept`): a phone may have two contacts.
    """
    if removal:
        found = [binding for binding in standing if _same_uri(binding, wanted)]
        if found or wanted.instance is None or wanted.reg_id is None:
            return found
        return [binding for binding in standing if binding.contact not in kept and same_contact(binding, wanted)]
    return [
        binding
        for binding in standing
        if same_contact(binding, wanted)
        and (binding.contact == wanted.contact or binding.contact not in kept or not _may_stand_beside(binding, wanted))
    ]


def _may_stand_beside(a: Binding, b: Binding) -> bool:
    """Two contacts of one device, asked for together: without `reg-id` RFC 3261 and RFC 5627 have both stand; one flow,
    one push registration and one URI are one."""
    if a.instance is None or b.instance is None or b.reg_id is not None:
        return False
    if _same_push_address(a, b):
        return False
    first, second = _parsed(a.contact), _parsed(b.contact)
    return first is None or second is None or not uris_equal(first, second)


def _parsed(contact: bytes) -> Uri | None:
    try:
        return parse_uri(contact)
    except MalformedMessage:  # only a damaged store holds one: it equals nothing and is not mobile
        return None


# --- RFC 3261 §10.3, steps 6 and 7 ------------------------------------------------------------------------------------


def decide(
    current: Sequence[Binding],
    asked: Sequence[Binding],
    now: float,
    max_contacts: int = MAX_CONTACTS,
    replace: bool = False,
) -> list[Change]:
    """What the contacts of one REGISTER change in the live bindings of its address of record.

    `asked` holds one binding per Contact value, all with the Call-ID and CSeq of the request; one that expires at or
    before `now` is a removal. Raises SipError 400 when a binding was changed by a later request of the same Call-ID
    (step 7), and 403 when a new phone would be one too many. A contact asked for with the very CSeq that stands is a
    retransmission that outlived its transaction, for instance over a restart: it changes nothing and is no error.
    With `replace` the phones heard of longest ago make room for a new one instead.
    """
    if len(asked) > len(current) + max_contacts:  # not even if it removed all that stand: no work for it
        raise SipError(403, "Too Many Contacts")
    standing = {binding.key: binding for binding in current}
    own = {id(binding) for binding in asked}
    kept = {wanted.contact for wanted in asked if wanted.expires_at > now}
    for wanted in asked:
        removal = wanted.expires_at <= now
        same = _meant(wanted, standing.values(), kept, removal)
        earlier = [binding for binding in same if id(binding) not in own and binding.call_id == wanted.call_id]
        _check_order(earlier, wanted.cseq, removal)
        if any(binding.cseq == wanted.cseq for binding in earlier):
            continue
        for binding in same:
            del standing[binding.key]
        if not removal:
            standing[wanted.key] = wanted
    if replace and len(standing) > max_contacts:
        others = (binding for binding in standing.values() if id(binding) not in own)
        for oldest in sorted(others, key=lambda binding: binding.registered_at)[: len(standing) - max_contacts]:
            del standing[oldest.key]
    changes = _difference(current, standing)
    if len(standing) > max_contacts and any(change.kind == "added" for change in changes):
        raise SipError(403, "Too Many Contacts")
    return changes


def decide_removal(current: Sequence[Binding], call_id: bytes, cseq: int) -> list[Change]:
    """What `Contact: *` with `Expires: 0` changes (step 6): every binding goes. Raises SipError 400 like `decide`."""
    _check_order((binding for binding in current if binding.call_id == call_id), cseq, removal=True)
    return [Change("removed", binding) for binding in current]


def _check_order(bindings: Iterable[Binding], cseq: int, removal: bool) -> None:
    """A request overtaken by a later one of its Call-ID fails as a whole; an equal CSeq can only repeat a refresh."""
    if any(binding.cseq > cseq or (removal and binding.cseq == cseq) for binding in bindings):
        raise SipError(400, "CSeq Out Of Order")


def _difference(before: Sequence[Binding], after: Mapping[tuple[bytes, str], Binding]) -> list[Change]:
    """The changes that lead from one set of bindings to the other, new contacts first. A phone that had one contact and
    now has two has added one."""
    changes: list[Change] = []
    left = list(before)
    for binding in after.values():
        if not any(binding is old for old in before):
            candidates = (old for old in left if old.key == binding.key or old.key not in after)
            previous = next((old for old in candidates if same_contact(old, binding)), None)
            changes.append(Change("refreshed" if previous else "added", binding, previous))
            left = [old for old in left if old is not previous]
    for old in before:
        if old.key not in after:
            moved = any(same_contact(old, binding) for binding in after.values())
            changes.append(Change("replaced" if moved else "removed", old))
    return changes


def is_overtaken(change: Change, standing: Binding) -> bool:
    """News of a change that the binding knows already, or that came behind a later one."""
    binding = change.binding
    if binding.call_id != standing.call_id:
        return change.stands and binding == standing
    return standing.cseq > binding.cseq or (change.stands and standing.cseq == binding.cseq)
