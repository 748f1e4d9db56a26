"""The API of a running server: resources under /api/v1, who may ask, what is answered when something is wrong."""
