"""Push services: what wakes the phones. One sender for each, behind a supervisor that keeps its queue.

Loaded only when `push: services:` names one; each sender, and the libraries it needs, only when it is used.
"""
