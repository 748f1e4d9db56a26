"""SIP messages: the public face of the parser.

`parse_message` turns octets into a `Request` or `Response` (model.py: raw lines and typed views; parser.py: the
reading); `forward_*` and `build_response` (build.py) turn them back into octets by splicing. Pure: no socket, no
clock, no state.
"""

from __future__ import annotations

from orchestrator.errors import MalformedMessage
from orchestrator.sip.build import build_response, forward_request, forward_response, header_line
from orchestrator.sip.headers import NameAddr, Via
from orchestrator.sip.model import Message, Request, Response
from orchestrator.sip.parser import parse_message, salvage_request
from orchestrator.sip.uri import Uri

__all__ = [
    "MalformedMessage",
    "Message",
    "NameAddr",
    "Request",
    "Response",
    "Uri",
    "Via",
    "build_response",
    "forward_request",
    "forward_response",
    "header_line",
    "parse_message",
    "salvage_request",
]
