"""Everything that touches gevent: the reactor, transports, worker pools, HTTP, the admin server, signals.

Nothing in here patches the standard library on import; `orchestrator.runtime.patch` does, when a process asks for it.

It may import every package but `testing`, `cli` and `settings`. Begin with `reactor`: one turn handles one input.
"""
