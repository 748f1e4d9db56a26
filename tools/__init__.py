"""Commands for those who work on the project; `python -m tools.<name>` at the root of the repository."""
