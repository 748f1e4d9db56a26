"""The file of the token that a first start makes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from orchestrator.api.token_file import TokenFileError, token_of


def test_a_full_disk_leaves_nothing_behind_that_a_later_start_trips_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container each start has the same process id."""
    file = tmp_path / "orchestrator.token"

    def full(*_: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", full)
        with pytest.raises(TokenFileError, match="No space left"):
            token_of(file)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"orchestrator.token.{os.getpid()}").touch()  # of a start that was killed
    token, made = token_of(file)
    assert made and token_of(file) == (token, False)
    assert file.stat().st_mode & 0o777 == 0o600
