"""The facts that services may listen to (`ServerContext.listen_facts`, `follow`), from one place.

| kind | what has happened |
|---|---|
| `MessageIn`, `MessageOut` | a SIP message came or left: octets, both addresses, transport, time |
| `JobDone` | work outside for a call has ended: a web request, a FreeSWITCH command, a push |
| `CallLeg` | a SIP Call-ID belongs to a call of a flow |
| `TraceWritten` | a run has done a step, taken an event, or its call has done something in SIP |
| `CallRecord` | a call of a flow has ended |
"""

from orchestrator.flow.run.trace import TraceWritten
from orchestrator.history import CallLeg, CallRecord, JobDone, MessageIn, MessageOut, SipMessage

__all__ = ["CallLeg", "CallRecord", "JobDone", "MessageIn", "MessageOut", "SipMessage", "TraceWritten"]
