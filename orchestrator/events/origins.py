"""Where each attribute of a built-in event comes from: a SIP header, a header of a FreeSWITCH event, or ourselves.

For people who look at a trace and wonder why an attribute says what it says (`orchestrator events`, docs/language.md).
What the translation does stands in `orchestrator.esl.translate` and `orchestrator.core`; a test holds that every
attribute of the catalogue is here.
"""

from __future__ import annotations

from collections.abc import Mapping

_LEG = "the side whose INVITE FreeSWITCH received (caller) or sent (callee), by Unique-ID"
_CONTACT = "the destination of that branch"

ORIGINS: Mapping[str, Mapping[str, str]] = {
    "registered": {
        "aor": "To of the REGISTER; FreeSWITCH: from-user@from-host",
        "contact": "Contact, without parameters",
        "uri": "Contact, with its URI parameters",
        "expires": "seconds that were granted; FreeSWITCH: expires",
        "user_agent": "User-Agent; FreeSWITCH: user-agent",
        "source_ip": "where the REGISTER came from; FreeSWITCH: network-ip",
        "path": "Path (RFC 3327); FreeSWITCH: fs_path of the contact",
        "mobile": "pn-provider, pn-prid or pn-tok among the contact's parameters (RFC 8599)",
        "is_new": "no binding of this contact stood; FreeSWITCH: update-reg is not true",
        "instance": "+sip.instance of the Contact (RFC 5626)",
    },
    "unregistered": {
        "aor": "To of the REGISTER that made the binding",
        "contact": "Contact of the binding",
        "reason": "Expires 0 (removed), time (expired), or a newer contact took its place (replaced)",
    },
    "push_failed": {
        "aor": "To of the REGISTER that made the binding",
        "contact": "Contact of the binding, without parameters",
        "service": "name of the push service in the configuration",
        "reason": "what the push service has answered, or why it was not asked",
        "dead": "whether the push service says that it never reaches this phone again",
    },
    "dtmf": {
        "digit": "DTMF-Digit; Signal= of a SIP INFO",
        "ms": "DTMF-Duration / 8 (samples at 8 kHz); Duration= of a SIP INFO",
        "leg": f"{_LEG}; who sent the INFO",
        "source": "DTMF-Source (RTP, INBAND_AUDIO …), INFO for a SIP INFO",
        "uuid": "Unique-ID; nothing for a SIP INFO",
    },
    "ringing": {
        "branch": "number of the branch in this call",
        "code": "status of the 18x",
        "contact": _CONTACT,
    },
    "answered": {"contact": _CONTACT, "leg": "who answered"},
    "branch_failed": {
        "branch": "number of the branch in this call",
        "code": "status of the final response; 408 when none came",
        "reason": "reason phrase of that response",
        "contact": _CONTACT,
    },
    "hangup": {
        "leg": "who sent BYE or CANCEL",
        "cause": "Reason of that request (RFC 3326), else normal or cancelled",
        "code": "SIP status, where whoever ended it gave one",
    },
    "fax_tone": {"tone": "what the detector was started for; else CNG of a caller, CED of a callee", "leg": _LEG},
    "beep": {
        "frequency": "Frequency in Hz",
        "ms": "Detection-time / 1000: since the detector was started",
        "leg": _LEG,
    },
    "silence": {"ms": "what silence: of the detector says", "leg": _LEG},
    "decision": {
        "verdict": "silence soon after the first words or a key: human; longer speech: machine; what its name says",
        "ms": "since the detector was started",
        "leg": _LEG,
    },
    "execute_done": {
        "app": "Application",
        "response": "Application-Response",
        "uuid": "Application-UUID: our Event-UUID when a flow started it",
    },
    "fs": {
        "name": "Event-Name; Event-Subclass of a CUSTOM event",
        "uuid": "Unique-ID",
        "headers": "all headers of the event, decoded",
        "body": "its body",
    },
    "fs.link": {
        "server": "name of the server in the configuration",
        "state": "whether its Event Socket delivers events",
        "reason": "why it went down",
    },
    "gateway_down": {
        "gateway": "name of the gateway",
        "reason": "what OPTIONS or calls have shown, or Retry-After",
    },
    "gateway_up": {"gateway": "name of the gateway", "reason": "what it has answered, or that it is tried again"},
    "charge_stop": {"reason": "Reason or DisconnectCause of DisconnectSession; why the session was not opened"},
    "limit_reached": {"usage": "since the answer"},
    "low_balance": {"usage": "since the answer"},
}
"""Event → attribute → origin."""


def origin_of(event: str, attribute: str) -> str:
    """Where an attribute comes from; '' for events that flows raise themselves."""
    return ORIGINS.get(event, {}).get(attribute, "")
