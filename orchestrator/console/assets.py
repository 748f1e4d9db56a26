"""What pages load besides themselves: style, scripts and icon. Read once, served from memory, by name only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

TYPES: Final = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
    }
)
"""Suffix → media type of what is served; other files of the folder are not."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `mark` is the beginning of its digest; a URL that bears it may be kept for ever."""

    name: str
    data: bytes
    content_type: str
    mark: str

    @property
    def url(self) -> str:
        return f"/static/{self.name}?{self.mark}"


@cache
def assets() -> MappingProxyType[str, Asset]:
    """Name below `static/` → file: `console.css`, `vendor/htmx.min.js`."""
    found: dict[str, Asset] = {}
    _read(files("orchestrator.console") / "static", "", found)
    return MappingProxyType(found)


def _read(folder: Traversable, prefix: str, found: dict[str, Asset]) -> None:
    for file in folder.iterdir():
        if file.is_dir():
            _read(file, f"{prefix}{file.name}/", found)
            continue
        suffix = file.name[file.name.rfind(".") :]
        if suffix in TYPES:
            data, name = file.read_bytes(), prefix + file.name
            found[name] = Asset(name, data, TYPES[suffix], hashlib.sha256(data).hexdigest()[:12])
