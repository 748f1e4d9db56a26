"""Programs that look for open SIP servers and weak passwords: they get silence.

They are told by their User-Agent, and by what they write into From and To: some send the agent of a well-known phone.
A scanner that hears nothing goes elsewhere; one that hears a 404 comes back with passwords. Trusted sources are not
looked at. A User-Agent can be changed by anybody: this keeps the many away that do not bother, no more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from orchestrator.sip.message import Request

DEFAULT_AGENTS: Final = (
    "friendly-scanner", "friendly-request", "sipvicious", "svwar", "svmap", "svcrack", "sipcli", "sip-scan", "sipscan",
    "sipsscuser", "siparmyknife", "sipcrack", "sipptk", "sundayddr", "pplsip", "sivus", "vaxsipuseragent",
    "vaxipuseragent", "mr.sip", "masscan", "zgrab",
)  # fmt: skip
"""Beginnings of words of a User-Agent, whatever the case."""
DEFAULT_ADDRESSES: Final = ("sipvicious", "sip:nm@nm", "sip:nm2@nm2", "sip:100@1.1.1.1")
"""Parts of a From or To, whatever the case: display names and addresses of sipvicious and nmap."""
_REMEMBERED: Final = 1_000


class Scanners:
    """Knows scanners by `agents` and `addresses`; with neither it knows none."""

    def __init__(self, agents: Sequence[str] = DEFAULT_AGENTS, addresses: Sequence[str] = DEFAULT_ADDRESSES) -> None:
        words = b"|".join(re.escape(agent.lower().encode()) for agent in agents)
        self._agent = re.compile(rb"(?<![a-z0-9])(?:" + (words or rb"(?!)") + rb")")
        self._addresses = tuple(address.lower().encode() for address in addresses)
        self._judged: dict[bytes, bool] = {}
        """User-Agent lines seen lately: phones are of a few kinds."""

    def knows(self, request: Request, well: bool = True) -> bool:
        """Whether a scanner has sent it. Each request is looked at: the same few User-Agents cost a look into a table;
        From and To are read of those who are not known `well`."""
        first, lines = request.shape.first, request.lines
        if b"user-agent" in first:
            agent = lines[first[b"user-agent"]]
            judged = self._judged.get(agent)
            if judged or (judged is None and self._judge(agent)):
                return True
        if well or not self._addresses:
            return False
        written = lines[first[b"from"]].lower() + lines[first[b"to"]].lower()
        return any(address in written for address in self._addresses)

    def _judge(self, line: bytes) -> bool:
        if len(self._judged) >= _REMEMBERED or len(line) > _REMEMBERED:
            self._judged.clear()
        found = self._judged[line] = self._agent.search(line.lower(), line.index(b":")) is not None
        return found

    def wrote(self, data: bytes) -> bool:
        """The same for octets that are no SIP message, by their User-Agent."""
        found = _agent_line(data)
        return found is not None and self._agent.search(found[1].lower()) is not None


_agent_line = re.compile(rb"\nUser-Agent[ \t]*+:([^\r\n]*+)", re.IGNORECASE).search
