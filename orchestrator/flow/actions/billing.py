"""The action `charge`: prepaid and postpaid calls with CGRateS (FLOWLANG §4.3)."""

from __future__ import annotations

from orchestrator.flow.language.registry import ACTIONS, Action, Field, Kind

CHARGE = ACTIONS.add(
    Action(
        "charge",
        "Authorise this call with CGRateS and bill it until it ends.",
        short="account",
        fields=(
            Field("account", Kind.TEXT, "Who pays.", required=True),
            Field("destination", Kind.TEXT, "Number to rate, default the called one."),
            Field("tenant", Kind.TEXT, "CGRateS tenant, default the domain of the call."),
            Field(
                "type",
                Kind.ENUM,
                "CGRateS request type.",
                values=("prepaid", "postpaid", "pseudoprepaid", "rated"),
            ),
            Field("max", Kind.DURATION, "Longest call to ask for."),
        ),
        beside=(Field("on", Kind.OUTCOMES, "Steps for each outcome.", values=("granted", "denied", "error")),),
        result="charge result",
        needs="call",
        waits=True,
    )
)
