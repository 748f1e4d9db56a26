"""systemd's notifications (sd_notify(3)): READY=1, WATCHDOG=1 every so often, STOPPING=1. For units with Type=notify.

services:
  systemd: {every: 10s}
"""

from __future__ import annotations

import os

import gevent
from gevent import socket
from pydantic import BaseModel, ConfigDict

from orchestrator.packages.service import ServerContext, Service
from orchestrator.packages.setting_types import Duration


class SystemdSettings(BaseModel):
    """What stands under `services: {systemd: {...}}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    every: Duration = 10.0
    """Between two signs of life: half of the unit's WatchdogSec at most."""


class Systemd:
    """Without NOTIFY_SOCKET in the environment nobody asked, and it does nothing."""

    def __init__(self, server: ServerContext, settings: SystemdSettings) -> None:
        self.server = server
        self.every = settings.every
        self.path = os.environ.get("NOTIFY_SOCKET", "")
        self.sent = 0
        self.trouble = ""
        server.counter("notifications", "Notifications sent to systemd.", lambda: self.sent)
        server.health(lambda: self.trouble)

    def start(self) -> None:
        if self.path:
            self.server.spawn(self.live)

    def live(self) -> None:
        """Begins when the server is ready. A greenlet that runs proves that the loop does."""
        self.notify("READY=1")
        while True:
            self.notify("WATCHDOG=1")
            gevent.sleep(self.every)

    def stop(self) -> None:
        if self.path:
            self.notify("STOPPING=1")

    def notify(self, text: str) -> None:
        """One datagram to systemd; a path that begins with @ is of the abstract namespace."""
        address = "\0" + self.path[1:] if self.path.startswith("@") else self.path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
                wire.sendto(text.encode(), address)
        except OSError as error:
            self.trouble = f"{self.path}: {error}"
        else:
            self.sent, self.trouble = self.sent + 1, ""


SERVICE = Service("systemd", "Tells systemd when the server is ready, alive and stopping.", Systemd, SystemdSettings)
