"""Phones that make calls while a page is looked at: in a thread with a loop of its own, since Playwright has the main
thread's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import gevent

from orchestrator.testing.sockets import SocketPhone, wait_until

PATIENCE = 60.0


class Phones:
    """`phones.do(lambda: ...)` runs in the thread of the phones; `close` ends them."""

    def __init__(self, server: tuple[str, int], *users: str) -> None:
        self.phones: dict[str, SocketPhone] = {}
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(server, users), daemon=True)
        self._thread.start()
        self.do(lambda: None)

    def _run(self, server: tuple[str, int], users: tuple[str, ...]) -> None:
        for user in users:
            phone = self.phones[user] = SocketPhone(f"{user}@example.com", server)
            phone.register()
        assert wait_until(lambda: all(phone.registered for phone in self.phones.values()))
        while True:
            try:
                asked = self._work.get_nowait()
            except queue.Empty:
                gevent.sleep(0.01)
                continue
            if asked is None:
                break
            act, answer = asked
            try:
                answer.put(act())
            except BaseException as error:
                answer.put(error)
        for phone in self.phones.values():
            phone.close()

    def do(self, act: Callable[[], Any]) -> Any:
        """The result of `act`, called where the phones are."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._work.put((act, answer))
        found = answer.get(timeout=PATIENCE)
        if isinstance(found, BaseException):
            raise found
        return found

    def until(self, condition: Callable[[], object]) -> None:
        """Wait there."""
        assert self.do(lambda: wait_until(condition, PATIENCE))

    def close(self) -> None:
        self._work.put(None)
        self._thread.join(10)
