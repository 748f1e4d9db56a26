"""Links of the running server: as whom they log in, and what a reload of the flow files makes of them."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from orchestrator.testing.freeswitch import FakeFreeSwitch
from orchestrator.testing.sockets import wait_until

WATCH = """
flows:
  links:
    on: fs.link
    do: [log: 'link ${event.server} ${event.state}']
"""


@pytest.fixture
def pair() -> Iterator[tuple[FakeFreeSwitch, FakeFreeSwitch]]:
    with FakeFreeSwitch(password="s3cret") as one, FakeFreeSwitch(password="s3cret") as two:
        yield one, two


class Reloaded:
    """A server whose FreeSWITCH servers stand in a flow file."""

    def __init__(self, serve: Callable[..., Any], path: Path, **config: object) -> None:
        self.path = path
        self._serve = serve
        self._config = config
        self.server: Any = None

    def write(self, more: str = "", **servers: FakeFreeSwitch) -> None:
        named = ", ".join(
            f"{name}: {{host: 127.0.0.1, port: {fs.port}, password: s3cret}}" for name, fs in servers.items()
        )
        self.path.write_text(f"flowlang: 1\nfreeswitch: {{{named}}}\n{WATCH}{more}")

    def start(self) -> None:
        self.server = self._serve(flows=[str(self.path)], **self._config)

    def reload(self) -> None:
        before = len(self.said("flows_reloaded"))
        self.server.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: len(self.said("flows_reloaded")) > before)

    def said(self, text: str) -> list[str]:
        return [line for line in self.server.log if text in line]


@pytest.fixture
def site(serve: Any, tmp_path: Path) -> Callable[..., Reloaded]:
    return lambda **config: Reloaded(serve, tmp_path / "links.flow.yaml", **config)


def test_a_directory_user_logs_in_with_userauth(serve: Any) -> None:
    with FakeFreeSwitch(users={"flows@pbx.local": "s3cret"}) as fs:
        keys = {"host": fs.host, "port": fs.port, "user": "flows@pbx.local", "password": "s3cret"}
        serve(freeswitch={"fs1": keys})
        fs.wait_subscribed("HEARTBEAT")
        assert fs.commands.texts[:2] == ["userauth flows@pbx.local:s3cret"] * 2


def test_a_server_that_has_moved_is_followed(site: Any, pair: tuple[FakeFreeSwitch, FakeFreeSwitch]) -> None:
    one, two = pair
    here = site()
    here.write(fs1=one)
    here.start()
    assert wait_until(lambda: here.said("link fs1 up"))
    here.write(fs1=two)
    here.reload()
    two.wait_subscribed("HEARTBEAT")
    one.wait_gone()
    assert wait_until(lambda: len(here.said("link fs1 up")) == 2)
    assert re.findall(r"link fs1 (\w+)", "\n".join(here.server.log)) == ["up", "down", "up"]
    assert one.accepted == two.accepted == 2


def test_a_server_that_is_taken_out_is_left(site: Any, pair: tuple[FakeFreeSwitch, FakeFreeSwitch]) -> None:
    one, two = pair
    here = site()
    here.write(fs1=one, fs2=two)
    here.start()
    one.wait_subscribed("HEARTBEAT")
    two.wait_subscribed("HEARTBEAT")
    here.write(fs2=two)
    here.reload()
    one.wait_gone()
    assert one.commands.texts.count("exit") == 2, "with a word"
    assert two.accepted == 2, "the other one is left alone"
    here.write(fs1=one, fs2=two)
    here.reload()
    assert wait_until(lambda: one.accepted == 4), "and back again"


def test_a_silent_server_does_not_hold_up_a_reload(site: Any, pair: tuple[FakeFreeSwitch, FakeFreeSwitch]) -> None:
    """It is asked for one more event and says nothing; the other one and the calls do not wait for it."""
    one, two = pair
    here = site()
    here.write(fs1=one, fs2=two)
    here.start()
    one.wait_subscribed("HEARTBEAT")
    two.wait_subscribed("HEARTBEAT")
    one.frozen = True
    here.write("  more:\n    on: {event: fs, where: {name: RELOADXML}}\n    do: [log: xml]\n", fs1=one, fs2=two)
    began = monotonic()
    here.server.process.send_signal(signal.SIGHUP)
    two.wait_subscribed("RELOADXML")
    assert monotonic() - began < 5, "it would be asked for longer"
    one.frozen = False
