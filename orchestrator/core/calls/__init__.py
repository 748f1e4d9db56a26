"""Calls under a flow: the INVITE and its dialogs, what flows see of it, the record of it."""
