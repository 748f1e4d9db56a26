"""What holds for all tests.

Those of the messages of RFC 4475 and RFC 5118 are collected where those messages are: beside the repository.
"""

from __future__ import annotations

import fcntl
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

import pytest
from hypothesis import HealthCheck, settings

from orchestrator import BUILD

RFC_MESSAGES = Path(__file__).resolve().parents[2] / "shared" / "torture"

collect_ignore = [] if RFC_MESSAGES.is_dir() else ["sip/test_torture.py", "core/test_torture_rfc.py"]

# A busy machine takes its time for an example; that is no mistake.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


gc.disable()  # until all are collected: they are some million objects that stay


def pytest_collection_finish() -> None:
    """What has been collected is not looked through again, also where a test calls `gc.collect()`."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What replaces parts of compiled modules runs on the plain build."""
    for item in items:
        if BUILD == "compiled" and (mark := item.get_closest_marker("plain")):
            item.add_marker(pytest.mark.skip(reason=f"on the plain build only: {mark.args[0]}"))


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Whatever process of this user runs tests: one at a time is here."""
    with (Path(gettempdir()) / f"orchestrator-tests-{os.getuid()}-{name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def port_5060() -> Iterator[None]:
    with alone("port-5060"):
        yield


@pytest.fixture(scope="module")
def full_load() -> Iterator[None]:
    """For calls at a rate that takes most of a core: no other such load beside it."""
    with alone("full-load"):
        yield
