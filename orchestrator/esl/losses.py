"""What FreeSWITCH says of events it could not deliver.

`Event-Sequence` counts every event of the core, those nobody has subscribed to included. So gaps in what a listener
gets are the rule, and tell nothing. FreeSWITCH itself knows better: a listener that does not read is given 100,000
events of patience (mod_event_socket.c, MAX_QUEUE_LEN); what comes on top is thrown away, and the first event that fits
again is followed by a line of the log at level CRIT, `Lost [216] events!`. After 500 it closes the connection instead.
A connection that has asked for `log crit` gets that line, on a queue of its own.
"""

from __future__ import annotations

import re

from orchestrator.esl.codec import LOG_DATA, Frame

LOG_COMMAND = "log crit"
"""Ask for the lines of level CRIT and worse: in a healthy switch there are none."""

_LOST = re.compile(rb"\bLost \[(\d{1,9})\] events!")


def lost_events(frame: Frame) -> int:
    """How many events a log line says were thrown away; 0 for every other line."""
    if frame.content_type != LOG_DATA or frame.get("Log-File") != "mod_event_socket.c":
        return 0
    found = _LOST.search(frame.body)
    return int(found[1]) if found is not None else 0
