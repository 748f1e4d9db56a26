"""What the Event Socket part may load, and what a routed key press may cost."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

import pytest

from orchestrator.esl.channels import ChannelTable
from orchestrator.esl.codec import FrameDecoder
from orchestrator.esl.translate import Translator
from orchestrator.testing.recordings import build_frame, rewrite

PURE = ["codec", "commands", "channels", "translate", "backoff"]


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


@pytest.mark.skipif(sys.gettrace() is not None, reason="measured without a tracer")
def test_a_routed_key_press_costs_less_than_forty_microseconds(recording) -> None:
    """From octets to the typed event, five more headers read; the best of several rounds, since noise only adds."""
    key = recording("via_bridge").find("DTMF")
    headers = ["Event-Name", "Unique-ID", "Call-Direction", "DTMF-Digit", "Caller-Destination-Number"]
    count = 500
    best = float("inf")
    for _ in range(10):
        blocks = [rewrite(key.block, {"Event-Sequence": str(number)}) for number in range(1, count + 1)]
        stream = b"".join(build_frame("text/event-plain", block) for block in blocks)
        translator, found = Translator(ChannelTable()), 0
        begin = perf_counter()
        for frame in FrameDecoder().feed(stream):
            event = frame.event()
            assert event is not None
            found += len(translator.translate("fs1", event, 0.0))
            for name in headers:
                event.get(name)
        best = min(best, perf_counter() - begin)
        assert found == count
    assert best / count < 40e-6
