"""Call flows: the language, its check, and the engine that runs it. No I/O.

Rooms, from below: `expr` (expressions), `language` (YAML, declarations, the registry of actions, the checked program),
`run` (what walks a program), `actions` (one generator for each action), `check` (from declarations to a program),
`tools` (graph, schema, explanations). `loader` puts them together: begin there, or with `language.program` for what is
loaded and `run.engine` for what runs. May import `events`, `errors` and `timers`.
"""
