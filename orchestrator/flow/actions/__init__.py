"""All actions of the language, one module per family.

Importing this package fills `orchestrator.flow.language.registry.ACTIONS`.
The order of import is the order of documentation and completion. Imports `flow.run` and `flow.language`; begin with
`web`, the shortest.
"""

from __future__ import annotations

from orchestrator.flow.actions import (  # isort: skip_file
    call,
    media,
    freeswitch,
    events,
    web,
    billing,
    registration,
    pushed,
    control,
)

__all__ = ["call", "media", "freeswitch", "events", "web", "billing", "registration", "pushed", "control"]
