"""docs/examples/location_store, installed beside the server and used by it: nothing is promised that is not stored."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from orchestrator.errors import InputError, StoreError
from orchestrator.packages.groups import STORE_GROUP
from orchestrator.packages.location_store import ChosenStore, StoreKind, find_store
from orchestrator.settings import read_settings
from orchestrator.sip.location import Binding
from orchestrator.sip.stores import SharedStore
from orchestrator.store import open_store
from orchestrator.store.memory import MemoryStore
from orchestrator.store.packing import pack, unpack

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "location_store"

CONFIG = """\
sip: {listen: ['udp:127.0.0.1:0'], domains: [example.com]}
location: {store: jsonlog, timeout: 2s, path: phones.jsonl}
flows: flows
admin: {listen: '127.0.0.1:0'}
"""


def install(target: Path) -> None:
    """What `pip install --target` leaves of the package, as its pyproject.toml says."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    for package in project["tool"]["setuptools"]["packages"]:
        shutil.copytree(EXAMPLE / package, target / package)
    name, version = project["project"]["name"], project["project"]["version"]
    metadata = target / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["project"]["entry-points"].items()
    (metadata / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups)
    )


class Server:
    """`orchestrator run` with the package, and a phone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "phones.jsonl"
        (folder / "flows").mkdir(exist_ok=True)
        (folder / "c.yml").write_text(CONFIG)
        self.err = folder / "err.txt"
        with self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", "run", "-c", "c.yml"],
                cwd=folder,
                stderr=err,
                env={**os.environ, "PYTHONPATH": f"{folder / 'packages'}{os.pathsep}{ROOT}"},
            )
        end = monotonic() + 90
        while "ready udp:" not in self.err.read_text():
            assert self.process.poll() is None and monotonic() < end, self.err.read_text()
            sleep(0.02)
        line = next(line for line in self.err.read_text().splitlines() if line.startswith("ready "))
        self.port = int(line.split()[1].rpartition(":")[2])
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))

    def ask(self, method: str, user: str, *headers: str, cseq: int = 1, wait: float = 30.0) -> str:
        """The status line of the answer, '' when none comes in time."""
        here = f"127.0.0.1:{self.sock.getsockname()[1]}"
        uri = "sip:example.com" if method == "REGISTER" else f"sip:127.0.0.1:{self.port}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{method}{user}{cseq};rport",
            f"From: <sip:{user}@example.com>;tag=a",
            f"To: <sip:{user}@example.com>",
            f"Call-ID: {method}{user}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            *headers,
            "Content-Length: 0\r\n\r\n",
        ]
        self.sock.settimeout(wait)
        self.sock.sendto("\r\n".join(lines).encode(), ("127.0.0.1", self.port))
        return self.heard(wait)

    def heard(self, wait: float = 30.0) -> str:
        self.sock.settimeout(wait)
        try:
            return self.sock.recv(65_535).decode().split("\r\n", 1)[0]
        except TimeoutError:
            return ""

    def register(self, user: str, cseq: int = 1, wait: float = 30.0) -> str:
        here = f"127.0.0.1:{self.sock.getsockname()[1]}"
        return self.ask("REGISTER", user, f"Contact: <sip:{user}@{here}>", cseq=cseq, wait=wait)

    @property
    def stored(self) -> set[str]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return {row["aor"] for line in lines for row in line.get("put", ())}

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        self.sock.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    (tmp_path / "packages").mkdir()
    install(tmp_path / "packages")
    servers: list[Server] = []

    def start() -> Server:
        servers.append(Server(tmp_path))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_the_200_comes_behind_the_write_and_outlives_kill_9(serve: Callable[[], Server]) -> None:
    server = serve()
    with locked(server.log):
        assert server.register("bob", wait=0.5) == "", "the disk has not got it"
        assert server.ask("OPTIONS", "x").startswith("SIP/2.0 200"), "nobody else waits"
    assert server.heard().startswith("SIP/2.0 200")
    assert server.stored == {"bob@example.com"}
    assert all(server.register(f"u{number}").startswith("SIP/2.0 200") for number in range(20))
    server.kill()
    again = serve()
    assert again.stored == {"bob@example.com", *(f"u{number}@example.com" for number in range(20))}
    query = again.ask("REGISTER", "bob", cseq=2)
    assert query.startswith("SIP/2.0 200")
    metrics = again.folder / "err.txt"
    assert "Traceback" not in metrics.read_text()


def test_a_store_that_hangs_is_a_503_and_none_is_late(serve: Callable[[], Server]) -> None:
    server = serve()
    with locked(server.log):
        assert server.register("bob").startswith("SIP/2.0 503")
    assert server.register("bob", cseq=2).startswith("SIP/2.0 200")
    server.kill()
    assert serve().stored == {"bob@example.com"}


# --- the configuration ------------------------------------------------------------------------------------------------


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    path: Path


class Shared(MemoryStore):
    def __init__(self, settings: Place) -> None:
        super().__init__()
        if settings.path == Path("bad"):
            raise OSError("no such place")

    def watch(self, changed: Callable[..., object]) -> None: ...


KIND = StoreKind("shared", "For the test.", Shared, Place)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_store")
    module.KIND, module.OTHER = KIND, 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_store", module)
    entries = [EntryPoint("shared", "a_store:KIND", STORE_GROUP), EntryPoint("other", "a_store:OTHER", STORE_GROUP)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [e for e in entries if e.group == group])


def test_the_configuration_chooses_a_store_and_sets_it(installed: None) -> None:
    chosen = read_settings("c.yml", "location: {store: shared, timeout: 3s, path: here}\n", {}).location
    assert isinstance(chosen, ChosenStore)
    assert (chosen.kind, chosen.settings, chosen.timeout) == (KIND, Place(path=Path("here")), 3.0)
    assert isinstance(open_store(chosen), SharedStore)
    assert not isinstance(MemoryStore(), SharedStore)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "location: {store: shred, path: x}",
            "c.yml:1:19: error E118: no installed package has a location store 'shred'",
        ),
        ("location: {store: other}", "c.yml:1:19: error E118: .*a_store:OTHER.*it is no StoreKind"),
        ("location: {store: shared, path: x, pat: y}", "c.yml:1:36: error E101: unknown key 'pat'"),
        ("location: {store: shared}", "c.yml:1:11: error E115"),
        ("location: {store: shared, path: x, timeout: soon}", "c.yml:1:45: error E105"),
        ("location: {path: x}", "c.yml:1:1: error E105: the name of a store is expected here"),
        ("location: {store: [shared]}", "c.yml:1:19: error E105: the name of a store is expected here"),
        ("location: redis://x", "c.yml:1:11: error"),
    ],
)
def test_a_mistake_is_told_with_its_place(installed: None, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_settings("c.yml", text + "\n", {})


def test_a_store_that_cannot_be_opened_is_named(installed: None) -> None:
    chosen = read_settings("c.yml", "location: {store: shared, path: bad}\n", {}).location
    with pytest.raises(StoreError, match="shared: OSError: no such place"):
        open_store(chosen)


def test_a_store_has_no_name_or_setting_of_ours() -> None:
    class Taken(BaseModel):
        timeout: int

    with pytest.raises(ValueError, match="small letters"):
        StoreKind("My Store", "", Shared)
    with pytest.raises(ValueError, match="'timeout'"):
        StoreKind("mine", "", Shared, Taken)
    assert find_store("shared", lambda group: ()) is None


texts, octets = st.text(max_size=8), st.binary(max_size=8)


@given(
    st.builds(
        Binding,
        aor=texts,
        contact=octets,
        expires_at=st.floats(0, 1e10),
        call_id=octets,
        path=st.lists(octets, max_size=2).map(tuple),
        received=st.none() | st.tuples(texts, st.integers(1, 65535)),
        extra=st.none() | st.dictionaries(texts, texts, max_size=2),
        parameters=octets,
    )
)
def test_a_binding_is_packed_to_the_last_field(binding: Binding) -> None:
    assert unpack(json.loads(json.dumps(pack(binding)))) == binding


def test_a_connection_is_not_kept() -> None:
    assert unpack(pack(Binding("a@x", b"sip:a@1.2.3.4", 5.0, connection=7))).connection == 0


def test_a_row_of_another_version_is_unpacked() -> None:
    row: Mapping[str, object] = {"aor": "a@x", "contact": "sip:a@1.2.3.4", "expires_at": 5.0, "colour": "red"}
    assert unpack(row) == Binding("a@x", b"sip:a@1.2.3.4", 5.0)
    wrong: Sequence[dict[str, object]] = [{}, {"aor": "a", "contact": 5, "expires_at": 1}]
    for bad in wrong:
        with pytest.raises((TypeError, AttributeError, ValueError)):
            unpack(bad)
