"""yaml-language-server over its stdio protocol (LSP 3.17), as an editor talks to it."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

PATIENCE = 15.0
"""Seconds to wait for an answer: the first one waits for Node to load the server."""


class LanguageServer:
    """One server with one schema for `*.flow.yaml`. Use it as a context manager."""

    def __init__(self, script: Path, schema: Path, folder: Path) -> None:
        self._folder = folder
        self._settings = {
            "schemas": {schema.as_uri(): "*.flow.yaml"},
            "completion": True,
            "hover": True,
            "validate": True,
            "schemaStore": {"enable": False},
        }
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._diagnostics: dict[str, list[str]] = {}
        self._number = 0
        self._documents = 0
        self._process = subprocess.Popen(
            ["node", str(script), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> LanguageServer:
        documents = {
            "completion": {"completionItem": {"snippetSupport": False}},
            "hover": {"contentFormat": ["markdown"]},
            "publishDiagnostics": {},
        }
        capabilities = {"textDocument": documents, "workspace": {"configuration": True}}
        self.ask("initialize", {"processId": None, "rootUri": self._folder.as_uri(), "capabilities": capabilities})
        self._send({"method": "initialized", "params": {}})
        self._send({"method": "workspace/didChangeConfiguration", "params": {"settings": {"yaml": self._settings}}})
        deadline = monotonic() + PATIENCE
        while "flows" not in self.completions("flowlang: 1\n|"):  # it answers before it has read the schema
            assert monotonic() < deadline, "the server does not read its configuration"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(5)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    # --- what an editor does ------------------------------------------------------------------------------------------

    def completions(self, text: str) -> list[str]:
        """What is offered at the mark `|`, in the order the server gives it."""
        uri, position = self._open(text)
        found = self.ask("textDocument/completion", {"textDocument": {"uri": uri}, "position": position})
        items = found["items"] if isinstance(found, dict) else found
        return [item["label"] for item in items]

    def hover(self, text: str) -> str:
        """The text shown over the mark `|`."""
        uri, position = self._open(text)
        found = self.ask("textDocument/hover", {"textDocument": {"uri": uri}, "position": position})
        return str(found["contents"]["value"]) if found else ""

    def diagnostics(self, text: str) -> list[str]:
        """What the server finds wrong with a text."""
        uri = self._show(text)
        while uri not in self._diagnostics:
            self._take(self._answers.get(timeout=PATIENCE))
        return self._diagnostics[uri]

    def _open(self, text: str) -> tuple[str, dict[str, int]]:
        before, _, after = text.partition("|")
        position = {"line": before.count("\n"), "character": len(before.rpartition("\n")[2])}
        return self._show(before + after), position

    def _show(self, text: str) -> str:
        """Open a document of its own; returns its URI."""
        self._documents += 1
        uri = (self._folder / f"d{self._documents}.flow.yaml").as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        return uri

    # --- the protocol -------------------------------------------------------------------------------------------------

    def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        self._number += 1
        number = self._number
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._answers.get(timeout=PATIENCE)
            if message.get("id") == number and "method" not in message:
                assert "error" not in message, message
                return message.get("result")
            self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        """What the server says unasked: it wants to know the configuration, or has found something."""
        if message.get("method") == "workspace/configuration":
            sections = {"yaml": self._settings}
            result = [sections.get(item.get("section"), {}) for item in message["params"]["items"]]
            self._send({"id": message["id"], "result": result})
        elif message.get("method") == "textDocument/publishDiagnostics":
            found = message["params"]["diagnostics"]
            self._diagnostics[message["params"]["uri"]] = [one["message"] for one in found]
        elif "method" in message and "id" in message:
            self._send({"id": message["id"], "result": None})

    def _send(self, message: Mapping[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            while header := stream.readline():
                length = int(header.partition(b":")[2])
                while stream.readline().strip():
                    pass
                self._answers.put(json.loads(stream.read(length)))
        except ValueError:
            pass  # closed, or cut in the middle of a message
