"""Phones that sleep: pushes to them, who waits for them to wake up, and who keeps them registered (RFC 8599)."""
