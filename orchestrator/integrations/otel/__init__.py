"""Traces of calls for OpenTelemetry (docs/opentelemetry.md)."""
