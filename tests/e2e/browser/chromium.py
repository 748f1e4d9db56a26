"""Chromium without a window, driven by its DevTools protocol: pages that make calls, with a microphone that beeps.

It reaches this machine only, and trusts one certificate of ours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gevent.event import AsyncResult

from orchestrator.testing.sockets import wait_until
from orchestrator.testing.websocket import WebSocketClient

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0
"""Seconds it may take to start, and to do something in a page."""


def chromium_path() -> str | None:
    """Where it is installed, None where it is not."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def fingerprint(certificate: Path) -> str:
    """The key of a certificate, as `--ignore-certificate-errors-spki-list` wants it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(octets).digest()).decode()


class Chromium:
    """A browser; a context manager that ends it. Its profile is in `folder`."""

    def __init__(self, folder: Path, certificate: Path) -> None:
        path = chromium_path()
        assert path is not None
        self._process = subprocess.Popen(
            [
                path,
                "--headless=new",
                "--no-sandbox",  # it does not start as root otherwise; it sees pages of ours only
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-extensions",
                "--disable-sync",
                "--no-first-run",
                "--mute-audio",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                "--allow-loopback-in-peer-connection",
                f"--ignore-certificate-errors-spki-list={fingerprint(certificate)}",
                f"--user-data-dir={folder}",
                "--remote-debugging-port=0",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._results: dict[int, AsyncResult[dict[str, Any]]] = {}
        self._number = 0
        try:
            port, address = self._listening(folder / "DevToolsActivePort")
            self._tools = WebSocketClient(("127.0.0.1", port), self._take, path=address, subprotocols=())
        except BaseException:
            self._end()
            raise

    def _listening(self, file: Path) -> tuple[int, str]:
        """Port and path of the DevTools: it writes them into this file when it is up."""

        def up_or_over() -> bool:
            return self._process.poll() is not None or (file.exists() and len(file.read_text().split()) == 2)

        assert wait_until(up_or_over, PATIENCE), "no sign of Chromium"
        assert self._process.poll() is None, "Chromium has ended"
        port, address = file.read_text().split()
        return int(port), address

    def _take(self, message: bytes) -> None:
        answer = json.loads(message)
        if (waiting := self._results.pop(answer.get("id"), None)) is not None:
            waiting.set(answer)

    def ask(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._number += 1
        waiting = self._results[self._number] = AsyncResult()
        command = {"id": self._number, "method": method, "params": params}
        self._tools.send(json.dumps(command | ({"sessionId": session} if session else {})).encode())
        answer = waiting.get(timeout=PATIENCE)
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def page(self, url: str) -> Page:
        """A new page, loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        self.ask("Page.navigate", session, url=url)
        return page

    def _end(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._tools.cut()
        self._end()


class Page:
    """One page of the browser."""

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target

    def close(self) -> None:
        self._browser.ask("Target.closeTarget", targetId=self._target)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self._browser.ask(
            "Runtime.evaluate", self._session, expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")
