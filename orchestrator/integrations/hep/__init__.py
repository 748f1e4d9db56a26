"""HEP version 3 to Homer: SIP messages, and what flows do, as packets (docs/homer.md)."""
