"""One FreeSWITCH for all tests of this folder that want one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from media_server import MediaServer, media_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    with media_server(tmp_path_factory.mktemp("freeswitch")) as server:
        yield server
