"""A CGRateS of the tests: it speaks its JSON-RPC on a real socket, keeps accounts, and calls back as both generations.

    python tests/e2e/cgrates_stub.py 2014 alice=60        # by itself, telling all it hears

Written after CGRateS 0.11 and 1.0 (sessions/sessions.go) and what OpenSIPS' module cgrates sends and takes. A session
that is opened reserves the usage that was asked for, or all there is; closing gives back what was not used.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

NS = 1_000_000_000
WAIT = 60.0
NONE = float("inf")


def seconds(text: Any) -> float | None:
    """`20s`, `0.25s`."""
    return None if text is None else float(str(text).removesuffix("s"))


class Connection:
    def __init__(self, stub: CgratesStub, made: socket.socket) -> None:
        self.stub, self.made = stub, made
        self.number = 1000
        self.answers: dict[int, dict[str, Any]] = {}
        self.lock = threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        decoder, held = json.JSONDecoder(), ""
        try:
            while data := self.made.recv(65_536):
                held += data.decode()
                while held := held.lstrip():
                    try:
                        found, end = decoder.raw_decode(held)
                    except json.JSONDecodeError:
                        break
                    held = held[end:]
                    self.take(found)
        except OSError:
            pass
        finally:
            self.stub.gone(self)

    def take(self, found: dict[str, Any]) -> None:
        stub = self.stub
        if "method" not in found:
            with stub.changed:
                self.answers[found["id"]] = found
                stub.changed.notify_all()
            return
        if stub.delay or found["method"] == "SessionSv1.SyncSessions":  # it asks its clients before it answers
            threading.Thread(target=self.answer, args=(found,), daemon=True).start()
        else:
            self.answer(found)

    def answer(self, found: dict[str, Any]) -> None:
        if self.stub.delay:
            time.sleep(self.stub.delay)
        params = found["params"][0] if found.get("params") else {}
        result, error = self.stub.called(found["method"], params)
        if not self.stub.mute:
            self.send({"id": found["id"], "result": result, "error": error})

    def send(self, value: dict[str, Any]) -> None:
        try:
            with self.lock:
                self.made.sendall(json.dumps(value).encode() + b"\n")
        except OSError:
            pass

    def call(self, method: str, params: Any) -> dict[str, Any]:
        """Ask the client; its answer."""
        with self.stub.changed:
            self.number = number = self.number + 1
        self.send({"method": method, "params": [params], "id": number})
        with self.stub.changed:
            assert self.stub.changed.wait_for(lambda: number in self.answers, WAIT), f"no answer to {method}"
            return self.answers.pop(number)


class CgratesStub:
    """`accounts`: seconds of balance, None for no limit. `delay`, `mute` and `errors` (method → error) can be changed
    at any time. `generation`: how it calls back, 0 (SMGClientV1), 1 (SessionSv1) or 2 (AgentV1)."""

    def __init__(self, accounts: dict[str, float | None], port: int = 0, generation: int = 2) -> None:
        self.accounts = dict(accounts)
        self.generation = generation
        self.delay = 0.0
        self.mute = False
        self.errors: dict[str, str] = {}
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.sessions: dict[tuple[str, str], dict[str, Any]] = {}
        """(OriginHost, OriginID) → its event; with what was granted."""
        self.terminated: list[tuple[str, float]] = []
        self.stale: list[str] = []
        """Sessions that a sync has ended."""
        self.unknown: list[str] = []
        """Sessions that were to be terminated and were not there."""
        self.cdrs: list[dict[str, Any]] = []
        self.connections: list[Connection] = []
        self.changed = threading.Condition(threading.RLock())
        self.port = port
        self.listen()

    def listen(self) -> None:
        """Begin, or come back on the same port."""
        self.server = socket.socket()
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.server.bind(("127.0.0.1", self.port))
        self.server.listen(100)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.server,), daemon=True).start()

    def accept(self, server: socket.socket) -> None:
        while True:
            try:
                made, _ = server.accept()
            except OSError:
                return
            with self.changed:
                self.connections.append(Connection(self, made))
                self.changed.notify_all()

    def gone(self, connection: Connection) -> None:
        with self.changed:
            if connection in self.connections:
                self.connections.remove(connection)
            self.changed.notify_all()
        connection.made.close()

    def stop(self) -> None:
        """It goes away; what it knows stays."""
        if self.server.fileno() >= 0:
            self.server.shutdown(socket.SHUT_RDWR)
            self.server.close()
        self.cut()

    def cut(self) -> None:
        """All connections end."""
        for connection in list(self.connections):
            try:
                connection.made.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def until(self, condition: Callable[[], Any]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, WAIT), [method for method, _ in self.heard]

    def count(self, name: str) -> int:
        """How often it was asked that."""
        return sum(method.partition(".")[2] == name for method, _ in self.heard)

    # --- what clients ask ---------------------------------------------------------------------------------------------

    def called(self, method: str, params: Any) -> tuple[Any, str | None]:
        if method == "SessionSv1.SyncSessions":
            self.sync()
            return "OK", None
        with self.changed:
            self.heard.append((method, params))
            if method in self.errors:
                result: tuple[Any, str | None] = None, self.errors[method]
            else:
                result = self.about_session(method, params, params.get("Event") or {})
            self.changed.notify_all()
            return result

    def about_session(self, method: str, params: Any, event: dict[str, Any]) -> tuple[Any, str | None]:
        name = method.partition(".")[2]
        account = event.get("Account")
        if account not in self.accounts:
            return None, "ACCOUNT_NOT_FOUND"
        left, asked = self.accounts[account], seconds(event.get("Usage"))
        key = (event.get("OriginHost", ""), event["OriginID"])
        if name.startswith("AuthorizeEvent"):
            most = -1.0 if left is None else min(left, NONE if asked is None else asked)
            return {"MaxUsage": most if name.endswith("WithDigest") or most < 0 else int(most * NS)}, None
        if name == "InitiateSession":
            session = self.sessions[key] = {**event, "granted": 0.0}
            return self.grant(account, session, asked), None
        if name == "UpdateSession":
            if key not in self.sessions:
                return None, "SESSION_NOT_FOUND"
            return self.grant(account, self.sessions[key], asked), None
        if name == "TerminateSession":
            used = seconds(event.get("Usage")) or 0.0
            session = self.sessions.pop(key, None)
            if session is None:
                self.unknown.append(event["OriginID"])
            else:
                self.terminated.append((event["OriginID"], used))
            if self.accounts[account] is not None:
                self.accounts[account] += (session["granted"] if session else 0.0) - used
            return "OK", None
        if name == "ProcessCDR":
            self.cdrs.append(event)
            return "OK", None
        return None, f"rpc: can't find service {method}"

    def grant(self, account: str, session: dict[str, Any], asked: float | None) -> dict[str, Any]:
        left = self.accounts[account]
        if left is None:
            return {"MaxUsage": -1}
        granted = left if asked is None else min(left, asked)
        session["granted"] += granted
        self.accounts[account] = left - granted
        return {"MaxUsage": int(granted * NS)}

    # --- what it asks of clients --------------------------------------------------------------------------------------

    @property
    def service(self) -> str:
        return ("SMGClientV1", "SessionSv1", "AgentV1")[self.generation]

    def disconnect(self, origin: str, reason: str) -> dict[str, Any]:
        event = next(event for (_, id), event in self.sessions.items() if id == origin)
        if self.generation < 2:
            params: dict[str, Any] = {"EventStart": event, "Reason": reason}
        else:
            params = {"ID": "1", "Time": "2026-11-30T10:00:00Z", "APIOpts": None,
                      "Event": {**event, "DisconnectCause": reason}}  # fmt: skip
        return self.connections[-1].call(f"{self.service}.DisconnectSession", params)

    def warn(self, origin: str) -> dict[str, Any]:
        event = next(event for (_, id), event in self.sessions.items() if id == origin)
        return self.connections[-1].call("AgentV1.WarnDisconnect", event)

    def alter(self, origin: str, **event: Any) -> dict[str, Any]:
        return self.connections[-1].call("AgentV1.AlterSession", {"Event": {"OriginID": origin, **event}})

    def active(self) -> set[tuple[str, str]]:
        """What its clients say that they have."""
        service = "AgentV1" if self.generation == 2 else "SessionSv1"
        answers = [connection.call(f"{service}.GetActiveSessionIDs", "") for connection in list(self.connections)]
        return {(entry["OriginHost"], entry["OriginID"]) for answer in answers for entry in answer["result"]}

    def sync(self) -> None:
        """End the sessions that no client has."""
        active = self.active()
        with self.changed:
            for key in set(self.sessions) - active:
                del self.sessions[key]
                self.stale.append(key[1])
            self.changed.notify_all()


def main() -> None:
    accounts = {name: float(value) if value else None for name, _, value in (a.partition("=") for a in sys.argv[2:])}
    stub = CgratesStub(accounts, int(sys.argv[1]))
    told = 0
    while True:
        time.sleep(0.1)
        for method, params in stub.heard[told:]:
            sys.stdout.write(f"{method} {json.dumps(params)}\n")
            told += 1
        sys.stdout.flush()


if __name__ == "__main__":
    main()
