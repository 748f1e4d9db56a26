"""Actions on the media of a call that FreeSWITCH holds: prompts, recordings, digits, detectors (FLOWLANG §4.3)."""

from __future__ import annotations

from orchestrator.flow.actions.call import LEGS
from orchestrator.flow.registry import ACTIONS, Action, Field, Kind

LEG = Field("leg", Kind.ENUM, "Which leg.", values=LEGS)

PLAY = ACTIONS.add(
    Action(
        "play",
        "Play a file or tone to a leg (FreeSWITCH).",
        short="file",
        fields=(
            Field("file", Kind.TEXT, "File or stream, as FreeSWITCH's playback takes it.", required=True),
            LEG,
            Field("repeat", Kind.NUMBER, "How many times it is played."),
            Field("background", Kind.BOOLEAN, "Go on at once instead of waiting for the end."),
        ),
        needs="call",
        waits=True,
    )
)

RECORD = ACTIONS.add(
    Action(
        "record",
        "Record a leg or the whole call (FreeSWITCH).",
        short="file",
        fields=(
            Field("file", Kind.TEXT, "File to write.", required=True),
            Field("max", Kind.DURATION, "Longest recording."),
            Field("silence", Kind.DURATION, "End after that much silence."),
            LEG,
            Field("stop", Kind.TEXT, "Keys that end the recording."),
        ),
        result="recording",
        needs="call",
        waits=True,
    )
)

COLLECT = ACTIONS.add(
    Action(
        "collect",
        "Collect digits, optionally playing a prompt.",
        short="max",
        fields=(
            Field("max", Kind.NUMBER, "Most digits.", required=True),
            Field("timeout", Kind.DURATION, "Longest wait for each key."),
            Field("end", Kind.TEXT, "Key that ends the input early."),
            Field("prompt", Kind.TEXT, "File or tone to play first; a key stops it."),
            LEG,
        ),
        result="digits",
        needs="call",
        waits=True,
    )
)

DETECT = ACTIONS.add(
    Action(
        "detect",
        "Start a FreeSWITCH detector; it raises fax_tone or beep events.",
        short="what",
        fields=(
            Field("what", Kind.ENUM, "What to listen for.", required=True, values=("fax", "beep")),
            LEG,
            Field("for", Kind.DURATION, "How long to listen."),
        ),
        needs="call",
    )
)
