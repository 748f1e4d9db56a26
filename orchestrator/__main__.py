"""`python -m orchestrator`: the command line without the console script."""

from __future__ import annotations

from orchestrator.cli import main

if __name__ == "__main__":
    main()
