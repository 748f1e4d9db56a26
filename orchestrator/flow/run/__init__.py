"""What runs a program: runs, tasks that wait, and the events that wake them.

From below: `signals`, `scheduler` (tasks and timers), `account` (what a run has read and counted), `task`, `listen`,
`run` (from its beginning to its end), `triggers`, `engine`. Imports `flow.language`; what a flow asks of the world is
an effect (`effects`), which the host performs. Begin with `engine`.
"""
