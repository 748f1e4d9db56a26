"""SIP without a network: grammar, messages, transactions, proxy, registrar, dialogs, digest (RFC 3261 and its kin).

Imports `errors` and `timers` only. Octets and `now` come in, octets and events go out. Begin with `message` (what a
message is), then `transaction` (the tables) and `layer` (who hears of what).
"""
