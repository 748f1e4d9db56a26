"""Integrations that come with the server: packages on its open points, as others can write them (docs/extending/).

Each is a room of its own, found by its entry point and loaded only where the configuration names it. It uses what
`packages` offers and nothing else of the server.
"""
