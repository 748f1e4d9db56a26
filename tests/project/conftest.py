"""One FreeSWITCH for all tests of this folder that want one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from media_server import MediaServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    server = MediaServer(tmp_path_factory.mktemp("freeswitch"))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
