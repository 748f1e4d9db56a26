"""The table of calls under a flow, by our id and by SIP Call-ID."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.calls.call import Call
from orchestrator.history import CallLeg, History


class Calls:
    """Calls that have not ended. Two calls may share a Call-ID (a spiral); the first is then found by it."""

    __slots__ = ("_by_id", "_by_call_id", "_history")

    def __init__(self, history: History) -> None:
        self._history = history
        self._by_id: dict[str, Call] = {}
        self._by_call_id: dict[bytes, Call] = {}

    def add(self, call: Call) -> None:
        self._by_id[call.id] = call
        self.add_call_id(call.sip_call_id, call)

    def add_call_id(self, call_id: bytes, call: Call) -> None:
        """Another dialog of the same call: its leg behind FreeSWITCH."""
        self._by_call_id.setdefault(call_id, call)
        if self._history.hears(CallLeg):
            self._history.tell(CallLeg(call.id, call_id, call.sip_call_id))

    def drop_call_id(self, call_id: bytes, call: Call) -> None:
        """A dialog that is no longer this call's."""
        if self._by_call_id.get(call_id) is call:
            del self._by_call_id[call_id]

    def discard(self, call: Call) -> None:
        self._by_id.pop(call.id, None)
        for call_id in call.call_ids:
            self.drop_call_id(call_id, call)

    def by_id(self, id: str) -> Call | None:
        return self._by_id.get(id)

    def by_call_id(self, call_id: bytes) -> Call | None:
        return self._by_call_id.get(call_id)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)
