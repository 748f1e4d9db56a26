"""Programs and runs for people and editors: graph and drawing, JSON Schema, why an event was not taken.

Imports all other rooms of `flow`; none imports this one. Begin with the tool you need.
"""
