"""Read models: what an engine holds, as plain dicts for the API, the console and the command line.

Functions of the engine without I/O and without a clock; they are called between two turns and never wait. Lists are a
`views.listing.Listing`, of which a page is made at a time.
"""
