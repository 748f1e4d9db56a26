"""A FreeSWITCH in memory, for flows whose media go through one: `server` is it, and `on_sockets` puts it on loopback.

Calls and what the dialplan does with them stand in `server`, what is known of one leg in `channel`, the applications in
`apps`, the API commands in `commands`, and the events, which are recorded ones of a real FreeSWITCH, in `events`.
"""

from orchestrator.testing.switch.server import VirtualFreeSwitch

__all__ = ["VirtualFreeSwitch"]
