"""Typed events and the bus that brings them to those who wait.

Imports `errors` and `timers`. Begin with `event` (what an event is) and `registry` (all there are); `bus` finds the
subscriptions of one event by hash.
"""
