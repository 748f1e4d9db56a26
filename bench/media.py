"""CPU per call through FreeSWITCH (`relay: {to: registered, via: fs1}`): ours, beside FreeSWITCH's own in the same run.

SIPp calls SIPp through a real FreeSWITCH with config/freeswitch: the caller's INVITE goes to it, it calls back, we ring
the phone; its Event Socket tells us of both channels. The same calls without FreeSWITCH, through the same server, take
turns with them: the difference is the price of two more dialogs, of the events and of the commands.

    python -m bench.media [--rate 20] [--seconds 5] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.figures import Figure, Skipped, middle, ratios, render
from bench.relay import Round, retry
from bench.servers import HOST, ROOT, Orchestrator, Server, free_port, on_core, udp_bound, wait_until
from orchestrator.testing.sipp import sipp_path

PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/freeswitch/bin", "/opt/freeswitch/bin"))
PASSWORD = "bench-of-media"
RTP_START, RTP_PORTS = 20_000, 2_000
FLOW = """flowlang: 1
flows:
  media:
    on: invite
    when: call.to.user == 'bob'
    do: [relay: {to: registered, via: fs1}]
  plain:
    on: invite
    do: [relay: {aor: '${"bob@" + call.to.host}'}]
"""
"""`bob` is called through FreeSWITCH, whoever else is named rings the same phone without it."""
MOST = 1_800.0
"""Microseconds of ours."""


class FreeSwitch(Server):
    """One of its own, with the configuration we ship."""

    name = "freeswitch"

    def __init__(self, folder: Path) -> None:
        program = shutil.which("freeswitch", path=PLACES)
        if program is None:
            raise Skipped("FreeSWITCH is not installed")
        self.port, self.esl_port = free_port(), free_port(socket.SOCK_STREAM)
        environment = {
            "ESL_PASSWORD": PASSWORD,
            "FREESWITCH_IP": HOST,
            "FREESWITCH_SIP_PORT": str(self.port),
            "FREESWITCH_ESL_PORT": str(self.esl_port),
            "FREESWITCH_RTP_START": str(RTP_START),
            "FREESWITCH_RTP_END": str(RTP_START + RTP_PORTS),
            "ORCHESTRATOR_NET": "127.0.0.0/8",
        }
        folders = [f"-{name}" for name in ("log", "db", "run", "storage", "temp", "recordings", "cache", "certs")]
        options = [item for name in folders for item in (name, str(folder))]
        configuration = ROOT / "config" / "freeswitch"
        super().__init__(
            [program, "-nf", "-nc", "-np", "-nonat", "-nonatmap", "-conf", str(configuration), *options],
            folder,
            environment,
        )
        self.wait_serving(lambda: udp_bound(HOST, self.port))


def figures(rate: int = 20, seconds: int = 5, rounds: int = 5) -> Iterator[Figure]:
    """Ours, FreeSWITCH's, and that of a call without it. Raises Skipped."""
    if sipp_path() is None:
        raise Skipped("SIPp is not installed (Debian: sip-tester)")
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(4)]
        switch = stack.enter_context(FreeSwitch(folders[0]))
        flow = folders[1] / "media.flow.yaml"
        flow.write_text(FLOW)
        fs1 = {"host": HOST, "port": switch.esl_port, "password": PASSWORD, "sip": f"sip:{HOST}:{switch.port}"}
        ours = stack.enter_context(Orchestrator(folders[1], [flow], more={"freeswitch": {"fs1": fs1}}))
        wait_until(lambda: "event_socket_up" in ours.log(), 60, "the Event Socket does not come up")
        stack.enter_context(on_core(-1))
        through, plain = (Round(ours, ours.port, folder) for folder in folders[2:])
        plain.service = "carol"
        plain.callee_port, plain.contact = through.callee_port, through.contact
        through.register()
        theirs: list[float] = []
        for side in (through, plain):
            retry(partial(side.play, rate, rate))
            side.microseconds.clear()
        for number in range(rounds):
            for side in (through, plain):
                begun = switch.cpu()
                spent = retry(partial(side.play, rate * seconds, rate))
                if side is through:
                    theirs.append((switch.cpu() - begun) / (rate * seconds) * 1e6)
                    print(f"round {number + 1}: {spent:.0f} µs, FreeSWITCH {theirs[-1]:.0f} µs", file=sys.stderr)
            time.sleep(0.2)
    yield middle(f"CPU per call through FreeSWITCH at {rate} per second", through.microseconds, "µs", most=MOST)
    yield middle("FreeSWITCH's own CPU per call", theirs, "µs")
    yield middle("ours beside FreeSWITCH", ratios(through.microseconds, theirs), "x")
    yield middle("CPU per call without FreeSWITCH", plain.microseconds, "µs")
    yield middle("through FreeSWITCH beside without", ratios(through.microseconds, plain.microseconds), "x")


QUICK = {"rate": 10, "seconds": 3, "rounds": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(render([("media", list(figures(options.rate, options.seconds, options.rounds)))]))


if __name__ == "__main__":
    main()
