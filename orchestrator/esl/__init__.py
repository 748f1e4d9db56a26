"""FreeSWITCH's Event Socket without a network: frames, channels, and the typed events made of them.

Imports `errors` and `events`. Begin with `codec` (octets to frames), then `channels` (a uuid and its SIP call) and
`translate` (frames to events). Connections stand in `runtime`.
"""
