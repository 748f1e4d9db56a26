"""Benchmarks: `python -m bench` for all of them and their targets, `python -m bench.relay` for one with its details."""
