"""Phones whose NAT has given them another place: where they are now.

The Record-Route of a dialog says where a phone behind NAT was seen when the dialog began (`sip.route_token`), and
stays as it is for all its time (RFC 3261 §12.2). A NAT that restarts gives the phone another port, and the phone
registers again, from there. So each registration that was refreshed from another place is kept here: a request of a
dialog that names the old place goes to the new one.

What was one phone is one phone: its instance or the Call-ID of its REGISTERs (RFC 3261 §10.2.4) says so. Two phones in
two private networks may have one Contact.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.sip.location import Binding, Change
from orchestrator.sip.route_token import Place

MOST = 10_000
"""Old places that are remembered; the oldest go first."""


class Moves:
    """Of one engine; `standing(binding)` is what has become of a binding since."""

    def __init__(self, standing: Callable[[Binding], Binding]) -> None:
        self._standing = standing
        self._moved: dict[tuple[Place, bytes], Binding] = {}

    def __len__(self) -> int:
        """Old places that are remembered."""
        return len(self._moved)

    def heard(self, change: Change) -> None:
        """A registration has changed. Its phone may have come to a place that it or another has left before."""
        new, old = change.binding, change.previous
        if not change.stands or new.received is None:
            return
        here = _place(new)
        if self._moved:
            self._moved.pop((here, _bare(new.contact)), None)
        if old is None or old.received is None or _place(old) == here or not _is_same_phone(old, new):
            return
        for contact in {_bare(old.contact), _bare(new.contact)}:
            key = _place(old), contact
            self._moved.pop(key, None)
            self._moved[key] = new
            if len(self._moved) > MOST:
                del self._moved[next(iter(self._moved))]

    def of(self, place: Place, uri: bytes) -> Binding | None:
        """The registration of the phone that was seen at this place with this URI as its Contact; None: it has not
        moved since, as far as is known."""
        moved = self._moved.get((place, _bare(uri)))
        if moved is None:
            return None
        standing = self._standing(moved)
        return standing if _is_same_phone(moved, standing) else moved


def _place(binding: Binding) -> Place:
    """As the tokens tell it."""
    host, port = binding.received or ("", 0)
    return host, port, binding.connection & 0xFFFFFFFF


def _bare(uri: bytes) -> bytes:
    """Without parameters: a phone may write more of them into one Contact than into another."""
    return uri.partition(b";")[0]


def _is_same_phone(old: Binding, new: Binding) -> bool:
    if old.instance is not None or new.instance is not None:
        return old.instance == new.instance
    return old.call_id == new.call_id
