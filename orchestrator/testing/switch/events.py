"""What a FreeSWITCH in memory says: recorded events of a real one, under other names.

`recorded/channel_events.esl` has one of each kind, cut from recordings of a FreeSWITCH 1.11 with config/freeswitch. In
one that is said, whatever names the channel is replaced; the rest stays as it was. An event says no more about a
channel than FreeSWITCH's does: DTMF has no variables, and avmd::beep has not even a direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from orchestrator.esl.codec import EslEvent
from orchestrator.testing.recordings import Recording, block_of, rewrite

TEMPLATES = Path(__file__).parent / "recorded" / "channel_events.esl"

Headers = Mapping[str, str | None]
NOTHING: Headers = {}


@cache
def template(key: str) -> EslEvent:
    """The recorded event of this name, or CUSTOM subclass. Raises LookupError."""
    return Recording.load(TEMPLATES).find(key)


def made(event: EslEvent, about: Headers, more: Headers) -> EslEvent:
    """An event under other names: `about` replaces what it has, `more` is put in whether it is there or not."""
    given = {name: value for name, value in about.items() if event.find(name) is not None}
    if event.find("variable_uuid") is None:
        more = {name: value for name, value in more.items() if not name.startswith("variable_")}
    return EslEvent.plain(rewrite(block_of(event), {**given, **more}))


def about(uuid: str, direction: str, name: str, other: str = "") -> dict[str, str | None]:
    """The headers that say which channel an event is about. `name`: user and host at its other end."""
    known = dict.fromkeys(("Unique-ID", "Caller-Unique-ID", "variable_uuid"), uuid)
    ways = ("Call-Direction", "Presence-Call-Direction", "Caller-Direction", "Caller-Logical-Direction")
    return {
        **known,
        **dict.fromkeys((*ways, "variable_direction"), direction),
        **dict.fromkeys(("Channel-Name", "Caller-Channel-Name", "variable_channel_name"), f"sofia/orchestrator/{name}"),
        "variable_is_outbound": "true" if direction == "outbound" else None,
        "Channel-Call-UUID": other if other and direction == "outbound" else uuid,
        "variable_call_uuid": other if other and direction == "outbound" else uuid,
        "Other-Leg-Unique-ID": other or None,
        "Other-Leg-Direction": ("inbound" if direction == "outbound" else "outbound") if other else None,
    }
