"""Orchestrator: an event-driven SIP routing engine programmed in YAML."""

__version__ = "0.1.0"
