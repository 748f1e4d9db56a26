"""What the Event Socket part may load."""

from __future__ import annotations

import subprocess
import sys

import pytest

PURE = ["codec", "commands", "channels", "losses", "translate", "backoff"]


@pytest.mark.parametrize("module", PURE)
def test_the_pure_part_loads_neither_gevent_nor_the_runtime(module: str) -> None:
    code = (
        f"import orchestrator.esl.{module}, sys\n"
        "foreign = ('gevent', 'greenswitch', 'loguru')\n"
        "above = tuple(f'orchestrator.{name}' for name in ('runtime', 'sip', 'core', 'flow'))\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in foreign or m.startswith(above)]\n"
        "assert not bad, bad\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20).returncode == 0
