"""Actions on events: listen in the background, wait, take the first of several, raise one (FLOWLANG §4.3, §5).

All of them arm before they return or sleep, so an event caused by the next step cannot be missed.
"""

from __future__ import annotations

from orchestrator.flow.registry import ACTIONS, Action, Field, Kind

NAME = Field("name", Kind.NAME, "For the event fs: its Event-Name, or the subclass of a CUSTOM event.")
WHERE = Field("where", Kind.WHERE, "Which events: attributes to match (map), or a condition over event.")
ANY_CALL = Field("any_call", Kind.BOOLEAN, "Take the event from any call, not only from this one.")

SUBSCRIBE = ACTIONS.add(
    Action(
        "subscribe",
        "Run steps each time an event arrives, without waiting here.",
        short="event",
        fields=(Field("event", Kind.EVENT, "Name of the event.", required=True),),
        beside=(
            NAME,
            WHERE,
            Field("for", Kind.DURATION, "How long to listen."),
            Field("limit", Kind.NUMBER, "End after so many events."),
            Field("unique_by", Kind.EXPRESSION, "Run the steps once for each value of this expression."),
            Field(
                "run",
                Kind.ENUM,
                "What to do with an event that comes while the steps still run.",
                values=("queue", "parallel", "drop", "restart"),
            ),
            ANY_CALL,
            Field("do", Kind.STEPS, "Steps to run for each event; event is known in them.", required=True),
            Field("on_expire", Kind.STEPS, "Steps to run when for: is over."),
        ),
    )
)

UNSUBSCRIBE = ACTIONS.add(
    Action(
        "unsubscribe",
        "End a subscription made earlier (by its id).",
        short="id",
        fields=(Field("id", Kind.SUBSCRIPTION, "The id: of the subscribe step.", required=True),),
    )
)

WAIT = ACTIONS.add(
    Action(
        "wait",
        "Pause until an event arrives.",
        short="event",
        fields=(Field("event", Kind.EVENT, "Name of the event.", required=True),),
        beside=(
            NAME,
            WHERE,
            Field("for", Kind.DURATION, "Longest wait; then on_timeout runs, or the step fails."),
            Field("meanwhile", Kind.STEPS, "Steps to run once the wait is armed, those that cause the event."),
            ANY_CALL,
            Field("on_timeout", Kind.STEPS, "Steps to run when for: is over."),
        ),
        result="event",
        waits=True,
    )
)

FIRST_OF = ACTIONS.add(
    Action(
        "first_of",
        "Wait for whichever comes first; exactly one branch runs.",
        short="branches",
        fields=(Field("branches", Kind.BRANCHES, "Entries of wait: or after:, each with do:.", required=True),),
        waits=True,
    )
)

RAISE = ACTIONS.add(
    Action(
        "raise",
        "Raise an event for other calls and flows.",
        short="event",
        fields=(Field("event", Kind.EVENT, "Name of an event declared under events:.", required=True),),
        beside=(Field("data", Kind.DATA, "Its attributes."),),
        result="raise result",
        in_on_end=True,
    )
)
