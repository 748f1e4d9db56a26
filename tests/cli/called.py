"""`orchestrator …` in this process: no start of Python. Not for `run` and `demo`, which patch the standard library."""

from __future__ import annotations

from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from orchestrator.cli import main


def orchestrator(folder: Path, *arguments: str) -> CompletedProcess[str]:
    """What a user sees who types this in the folder."""
    out, err = StringIO(), StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return CompletedProcess(arguments, ended.value.code, out.getvalue(), err.getvalue())
