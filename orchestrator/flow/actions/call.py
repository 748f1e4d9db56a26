"""Actions on the SIP call: answer it, send it on, add and remove destinations, end it (FLOWLANG §4.3).

`relay` is the one that waits; all others are done when the step returns. The state of the call they may meet is
the checker's business (`effect`), and the host checks it once more before any SIP message is sent.
"""

from __future__ import annotations

from orchestrator.flow.registry import ACTIONS, Action, Effect, Field, Kind

LEGS = ("caller", "callee", "both")

RELAY_OUTCOMES = ("answered", "busy", "no_answer", "rejected", "unavailable", "failed", "cancelled")

REPLY = ACTIONS.add(
    Action(
        "reply",
        "Answer the SIP request with a status code; 1xx keeps it open.",
        short="code",
        fields=(
            Field("code", Kind.STATUS, "Status code, 100-699.", required=True),
            Field("reason", Kind.TEXT, "Reason phrase; the RFC's own when it is not given."),
            Field("headers", Kind.MAP, "Header fields to add."),
        ),
        needs="request",
        effect=Effect.REPLIES,
    )
)

RELAY = ACTIONS.add(
    Action(
        "relay",
        "Send the call on. Waits until it is answered or has failed everywhere.",
        short="to",
        fields=(
            Field("to", Kind.DESTINATION, "registered, original, a SIP URI, a list of them, or ${...}."),
            Field("aor", Kind.TEXT, "Ring the contacts registered for this address: user@domain."),
            Field("gateways", Kind.GATEWAYS, "Gateways to try, by name."),
            Field("mode", Kind.ENUM, "How several destinations are rung.", values=("parallel", "serial", "by_q")),
            Field("ring", Kind.DURATION, "How long all of it may ring."),
            Field("each", Kind.DURATION, "How long each destination may ring (serial)."),
            Field("keep_open", Kind.DURATION, "Wait that long for late branches, even with none at all."),
            Field("failover_on", Kind.FAILOVER, "What makes the next gateway be tried: 408, 5xx, timeout."),
            Field("via", Kind.SERVER, "Anchor the media on this FreeSWITCH server."),
            Field("headers", Kind.MAP, "Header fields to add to every branch."),
            Field("from", Kind.TEXT, "Calling party to show instead of the caller's: a SIP URI or user@host."),
        ),
        beside=(Field("on", Kind.OUTCOMES, "Steps for each outcome.", values=RELAY_OUTCOMES),),
        result="relay result",
        needs="call",
        effect=Effect.RELAYS,
        waits=True,
    )
)

INJECT = ACTIONS.add(
    Action(
        "inject",
        "Add a destination to this call while it is still ringing.",
        short="to",
        fields=(
            Field("to", Kind.DESTINATION, "A SIP URI, a list of them, or ${...}."),
            Field("aor", Kind.TEXT, "Ring the contacts registered for this address: user@domain."),
            Field("cancel_others", Kind.BOOLEAN, "Cancel the other branches once the new one is sent."),
            Field("last", Kind.BOOLEAN, "No further branch is awaited: ends keep_open."),
            Field("ring", Kind.DURATION, "How long the new branch may ring."),
            Field("headers", Kind.MAP, "Header fields to add to the new branch."),
        ),
        result="inject result",
        needs="call",
    )
)

CANCEL = ACTIONS.add(
    Action(
        "cancel",
        "Stop ringing branches of this call.",
        short="branches",
        fields=(Field("branches", Kind.LIST, "all, or the branches by their name or contact.", required=True),),
        needs="call",
    )
)

ANSWER = ACTIONS.add(
    Action(
        "answer",
        "Answer the caller now (needs FreeSWITCH media).",
        fields=(Field("headers", Kind.MAP, "Header fields to add to the 200."),),
        needs="call",
        effect=Effect.ANSWERS,
        waits=True,
    )
)

MEDIA = ACTIONS.add(
    Action(
        "media",
        "Anchor the call on a FreeSWITCH server, parked and under control of this flow.",
        short="server",
        fields=(
            Field("server", Kind.SERVER, "FreeSWITCH server, by name.", required=True),
            Field("answer", Kind.BOOLEAN, "Answer the caller at once; early media otherwise."),
        ),
        needs="call",
        effect=Effect.ANSWERS,
        waits=True,
    )
)

HANGUP = ACTIONS.add(
    Action(
        "hangup",
        "End the call (CANCEL, BYE or a final reply, whatever fits).",
        short="reason",
        fields=(
            Field("reason", Kind.TEXT, "Why, for the Reason header field and the trace."),
            Field("code", Kind.STATUS, "Status code when the call is not answered yet."),
            Field("leg", Kind.ENUM, "The leg to end.", values=LEGS),
        ),
        needs="call",
        effect=Effect.ENDS_CALL,
    )
)

ORIGINATE = ACTIONS.add(
    Action(
        "originate",
        "Place an outbound call and run under it.",
        short="to",
        fields=(
            Field("to", Kind.TEXT, "A SIP URI, or a number when gateway: is given.", required=True),
            Field("gateway", Kind.GATEWAYS, "Gateway to place the call through."),
            Field("from", Kind.TEXT, "Calling party to show: a SIP URI or user@host."),
            Field("ring", Kind.DURATION, "How long it may ring."),
            Field("via", Kind.SERVER, "FreeSWITCH server that places the call."),
            Field("vars", Kind.MAP, "FreeSWITCH channel variables to set."),
        ),
        result="relay result",
        provides="call",
        waits=True,
    )
)

TRANSFER = ACTIONS.add(
    Action(
        "transfer",
        "Send the (answered) call to another destination; hangs up the old peer.",
        short="to",
        fields=(
            Field("to", Kind.DESTINATION, "A SIP URI, or ${...}.", required=True),
            Field("leg", Kind.ENUM, "The leg that is sent on.", values=LEGS),
            Field("context", Kind.TEXT, "FreeSWITCH dialplan context."),
        ),
        needs="call",
    )
)
