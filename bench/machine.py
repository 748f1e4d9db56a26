"""What a run of the benchmarks was made with: the machine, our build, the versions of the peers."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator import BUILD, __version__

PROGRAMS = {"kamailio": "-v", "sipp": "-v", "nghttpd": "--version", "rabbitmqctl": "version"}
PACKAGES = ("gevent", "greenlet", "greenswitch", "httpx", "amqp", "pika", "amqpstorm", "sippy")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


def about() -> dict[str, Any]:
    """For JSON. What is not here is left out."""
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "orchestrator": __version__,
        "build": BUILD,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": _versions(),
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found is not None else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    programs = {name: shutil.which(name, path=PATH) for name in PROGRAMS} | {"opensips": os.environ.get("OPENSIPS")}
    for name, program in programs.items():
        if program:
            found[name] = _first_number(program, PROGRAMS.get(name, "-a F_MALLOC -V"))
    return found


def _first_number(program: str, option: str) -> str:
    """The version in what a program says of itself; '?' where it says none."""
    try:
        said = subprocess.run(
            [program, *option.split()], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    number = re.search(r"\d+(?:\.\d+)+[-\w]*", said.stdout + said.stderr)
    return number[0] if number is not None else "?"
