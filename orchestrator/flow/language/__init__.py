"""What a flow file is: YAML with places, sections, declarations, the registry of actions, the checked program.

Imports `flow.expr`; knows neither the check nor the engine. Begin with `program` (what a file becomes) and `registry`
(what an action is). `packages` adds actions and events of other packages.
"""
