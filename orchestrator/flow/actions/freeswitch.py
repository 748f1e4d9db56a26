"""Actions that hand a command to FreeSWITCH over the Event Socket as it is (FLOWLANG §4.3)."""

from __future__ import annotations

from orchestrator.flow.actions.call import LEGS
from orchestrator.flow.registry import ACTIONS, Action, Field, Kind

COMMAND_FIELDS = (
    Field("command", Kind.TEXT, "The command with its arguments, as fs_cli takes it.", required=True),
    Field("server", Kind.SERVER, "FreeSWITCH server, by name; default the one that has this call."),
    Field("expect", Kind.TEXT, "Pattern the reply must match, * and ? are wildcards; else esl.command is raised."),
)

FS_API = ACTIONS.add(
    Action(
        "fs.api",
        "Run a FreeSWITCH API command.",
        short="command",
        fields=COMMAND_FIELDS,
        result="esl result",
        in_on_end=True,
        waits=True,
    )
)

FS_BGAPI = ACTIONS.add(
    Action(
        "fs.bgapi",
        "Run a FreeSWITCH API command in the background; waits for its job result.",
        short="command",
        fields=COMMAND_FIELDS,
        result="esl result",
        in_on_end=True,
        waits=True,
    )
)

FS_EXECUTE = ACTIONS.add(
    Action(
        "fs.execute",
        "Run a FreeSWITCH dialplan application on a leg.",
        short="app",
        fields=(
            Field("app", Kind.TEXT, "Name of the application: playback, rxfax, set ...", required=True),
            Field("args", Kind.TEXT, "Its arguments."),
            Field("leg", Kind.ENUM, "Which leg.", values=LEGS),
            Field("wait", Kind.BOOLEAN, "Wait until the application has finished."),
        ),
        result="execute result",
        needs="call",
        waits=True,
    )
)
