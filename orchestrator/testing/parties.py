"""Who is who in a story: its calls, the phones of their sides, and the FreeSWITCH channels on which those are heard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.testing.phone import Phone, PhoneCall
from orchestrator.testing.switch.channel import SwitchChannel
from orchestrator.testing.switch.server import VirtualFreeSwitch
from orchestrator.testing.world import PROXY, World


class StoryError(Exception):
    """The story cannot be told: it names a phone or a call that is not there."""


class Story(Protocol):
    """What is told: which calls have ended (Call-ID, by whom, why)."""

    ended: list[tuple[str, str, str]]


class StoryCall:
    """One call of a story: the caller's side of it (FreeSWITCH's, where that has placed it), and what a flow knows of
    it."""

    def __init__(self, story: Story, phone_call: PhoneCall) -> None:
        self._story = story
        self.phone_call = phone_call

    @property
    def replies(self) -> list[int]:
        """Final replies the caller got."""
        return [status for status in self.phone_call.statuses if status >= 200]

    @property
    def _end(self) -> tuple[str, str]:
        call_id = self.phone_call.call_id.decode()
        return next((end[1:] for end in self._story.ended if end[0] == call_id), ("", ""))

    @property
    def ended_by(self) -> str:
        """caller, callee or engine; '' when it was still up at the end of the story, or no flow took it."""
        return self._end[0]

    @property
    def end_reason(self) -> str:
        return self._end[1]


def reserved(host: str) -> str:
    """Who lives at an address that no phone of a story may have; '' when it is free."""
    if host == PROXY[0]:
        return "the engine"
    if host.startswith("10.254.0."):
        return "FreeSWITCH"
    return "callers without a registration" if host.startswith("10.255.0.") else ""


class Parties:
    """The phones of a world, and its FreeSWITCH servers."""

    def __init__(self, world: World, switches: Mapping[str, VirtualFreeSwitch]) -> None:
        self._world = world
        self._switches = switches

    @property
    def phones(self) -> list[Phone]:
        """The phones: FreeSWITCH is one to SIP, but nobody's."""
        return [phone for phone in self._world.phones.values() if not isinstance(phone, VirtualFreeSwitch)]

    def side(self, call: StoryCall, side: str) -> PhoneCall:
        """The dialog of a side's phone. Raises StoryError."""
        if side == "callee":
            return self._callee(call)
        if isinstance(call.phone_call.phone, VirtualFreeSwitch):
            raise StoryError("FreeSWITCH has placed this call: it has no caller")
        return call.phone_call

    def _callee(self, call: StoryCall) -> PhoneCall:
        """Through FreeSWITCH it is another dialog of the same call."""
        known = self._world.engine.calls.by_call_id(call.phone_call.call_id)
        ids = known.dialogs.call_ids if known is not None else (call.phone_call.call_id,)
        for phone in self.phones:
            for other in phone.calls:
                if other.incoming and other.call_id in ids and other.state == "answered":
                    return other
        raise StoryError("nobody has answered this call")

    def channel(self, call: StoryCall, side: str) -> SwitchChannel | None:
        """The channel on which a side is heard; None where the media go elsewhere. Raises StoryError."""
        dialog = self.side(call, side)
        channels = (switch.channel_of(dialog) for switch in self._switches.values())
        return next((channel for channel in channels if channel is not None), None)

    def heard(self, call: StoryCall, side: str) -> SwitchChannel:
        """The same for what only FreeSWITCH hears. Raises StoryError."""
        channel = self.channel(call, side)
        if channel is None:
            raise StoryError(f"the media of this call do not go through FreeSWITCH: nobody there hears the {side}")
        return channel
