"""From declarations to a program: every step typed, every name known, every mistake named with its place.

Imports `flow.language` and `flow.expr`. Begin with `flows` (one flow) and `steps` (what holds for any step);
`compilers` says which function reads which action. Afterwards `call_state` walks each flow for the state of its call,
and `across_flows` looks at all flows together.
"""
