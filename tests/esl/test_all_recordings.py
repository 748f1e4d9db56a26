"""Every recording of a real FreeSWITCH there is, and what flows get of it: a table, one line for each recording.

A recording stands in the repository as the raw stream (.esl), as JSON lines (.eslrec) or as both; all of
them have to say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.esl.channels import ChannelTable
from orchestrator.esl.codec import FrameDecoder
from orchestrator.esl.translate import Translation, Translator
from orchestrator.events.registry import EventRegistry
from orchestrator.testing.recordings import Recording

FOLDER = Path(__file__).parent.parent / "fixtures" / "esl"


@dataclass(frozen=True)
class Says:
    """What a recording holds for flows. `digits`: for each channel on which keys were pressed, `leg digits`."""

    events: int
    channels: int = 2
    digits: list[str] = field(default_factory=list)
    tones: str = ""
    beeps: str = ""
    apps: str = ""
    duplicates: int = 0
    """Events that FreeSWITCH has sent twice, at least as complete the first time."""


PARKED = "answer park"
TABLE = {
    "avmd_beep": Says(29, beeps="callee 1000 Hz", apps="answer avmd_start playback sleep sleep"),
    "avmd_beep_api_parked": Says(31, apps="answer park playback sleep", duplicates=2),
    "avmd_beep_app": Says(29, beeps="callee 1000 Hz", apps="answer avmd_start playback sleep sleep"),
    "bgapi_job": Says(2, channels=0),
    "bridge_dtmf": Says(120, channels=4, digits=["caller 7"], apps="answer answer park park park park"),
    "burst20": Says(
        1286,
        channels=40,
        digits=["caller 1234567890*#"] * 20,
        apps=" ".join(["answer"] * 20 + ["park"] * 40 + ["set"] * 20),
    ),
    "call_failed": Says(31),
    "commands": Says(3, channels=1),
    "detectors": Says(
        23,
        apps="avmd_start avmd_stop bridge export export export export record_session record_session set set "
        "spandsp_start_fax_detect",
    ),
    "dtmf": Says(60, digits=["caller 25#"], apps="answer park park set"),
    "dtmf_json": Says(56, digits=["caller 2"], apps="answer park park set"),
    "dtmf_park": Says(16, channels=1, digits=["caller 12#"], apps=PARKED),
    "fax_ced": Says(58, tones="ced caller", apps="answer playback set sleep spandsp_start_fax_detect"),
    "fax_cng": Says(57, tones="cng caller", apps="answer event playback sleep spandsp_start_fax_detect"),
    "fax_detect": Says(33, tones="cng caller", apps="answer event playback set set sleep spandsp_start_fax_detect"),
    "fax_t38_received": Says(
        19,
        channels=1,
        tones="cng caller",
        apps="answer export export park playback rxfax set set set set set set set spandsp_start_fax_detect",
    ),
    "fax_t38_sent": Says(9, channels=1, apps="park set txfax"),
    "heartbeat": Says(6, channels=0),
    "hold_hangup": Says(66, apps="answer park park"),
    "lost_events": Says(1, channels=0),
    "pickup_endpoint": Says(39, channels=5, apps="answer bridge pickup ring_ready sleep"),
    "pickup_intercept": Says(43, channels=4, apps="answer bridge intercept park ring_ready set sleep"),
    "tone_detect": Says(56, apps="answer log playback sleep tone_detect"),
    "tone_detect_parked_duplicate": Says(27, apps="answer park playback tone_detect"),
    "valet_park": Says(30, apps="answer answer valet_park valet_park"),
    "via_bridge": Says(58, digits=["callee 5", "caller 1"], apps="bridge export set"),
}


def recordings() -> list[Path]:
    """All of the repository."""
    return sorted(FOLDER.glob("*.esl*"))


PATHS = recordings()
by_name = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)


def translated(recording: Recording) -> tuple[Translator, list[Translation]]:
    translator = Translator(ChannelTable(ttl=1e9))
    found = [
        one
        for item in recording
        if (event := item.event) is not None
        for one in translator.translate("fs1", event, item.at)
    ]
    return translator, found


def said(recording: Recording) -> Says:
    translator, found = translated(recording)
    of: dict[str, list[Translation]] = {name: [] for name in ("dtmf", "fax_tone", "beep", "execute_done")}
    for one in found:
        of[one.event.name].append(one)
    pressed: dict[tuple[str, str], str] = {}
    for one in of["dtmf"]:
        key = one.uuid, str(one.event.attributes["leg"])
        pressed[key] = pressed.get(key, "") + str(one.event.attributes["digit"])
    return Says(
        events=len(recording.events),
        channels=len(translator.table),
        digits=sorted(f"{leg} {digits}" for (_, leg), digits in pressed.items()),
        tones=" ".join("{tone} {leg}".format_map(one.event.attributes) for one in of["fax_tone"]),
        beeps=" ".join("{leg} {frequency:.0f} Hz".format_map(one.event.attributes) for one in of["beep"]),
        apps=" ".join(sorted(str(one.event.attributes["app"]) for one in of["execute_done"])),
        duplicates=translator.duplicates,
    )


@pytest.mark.parametrize("name", sorted(TABLE))
def test_flows_get_what_the_table_says(name: str) -> None:
    paths = [path for path in PATHS if path.stem == name]
    assert [said(Recording.load(path)) for path in paths] == [TABLE[name]] * len(paths)


def test_no_recording_is_left_out() -> None:
    assert {path.stem for path in PATHS} == TABLE.keys()


@by_name
def test_what_is_raised_is_as_the_catalogue_promises(path: Path) -> None:
    catalogue = EventRegistry()
    for one in translated(Recording.load(path))[1]:
        spec, attributes = catalogue[one.event.name], one.event.attributes
        assert attributes.keys() == spec.attributes.keys()
        for name, attribute in spec.attributes.items():
            assert attributes[name] is not None or attribute.optional, (one, name)
            assert not attribute.values or attributes[name] in attribute.values, (one, name)


@by_name
def test_no_event_of_a_call_is_without_its_channel(path: Path) -> None:
    translator, found = translated(Recording.load(path))
    assert translator.orphans == 0
    assert all(one.uuid and one.sip_call_id for one in found)


@by_name
def test_nothing_is_lost_between_two_pieces_of_any_length(path: Path) -> None:
    """Prime lengths, so that the cuts wander through heads, bodies and the gaps between them."""
    raw = b"".join(item.raw for item in Recording.load(path))
    whole = [(frame.content_type, frame.head, frame.body) for frame in FrameDecoder().feed(raw)]
    for size in (997, 8_191):
        decoder = FrameDecoder()
        pieces = [decoder.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
        assert [(frame.content_type, frame.head, frame.body) for frames in pieces for frame in frames] == whole
