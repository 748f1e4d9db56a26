"""The file of a user table: `users: {local: {file: config/users.yaml}}`.

    alice: her password
    bob:   {password: {env: BOB_PASSWORD}}
    carol: {ha1: 2f9a…}                      # 32 digits are MD5, 64 SHA-256; a list holds both
    dave:  {ha1: {SHA-512-256: 77c1…}}       # a map names the algorithms

A hash is that of `user:realm:password` (RFC 7616 §3.4.2), so it belongs to one realm. The file is read with the reader
of the flows: a password `0123` stays that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.users import LocalUsers, hashes_of
from orchestrator.errors import Diagnostic, InputError
from orchestrator.flow.language.yaml import Document, Entries, Items, Node, Scalar, parse
from orchestrator.sip.digest import Secret


def load_users(path: Path, environ: Mapping[str, str]) -> LocalUsers:
    """Read a file of users. Raises InputError, also when it cannot be read; no message holds a password."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError([Diagnostic(str(path), 1, 1, "E003", f"this cannot be read: {reason}")]) from None
    return read_users(str(path), text, environ)


def read_users(name: str, text: str, environ: Mapping[str, str]) -> LocalUsers:
    """The users in `text`; `name` is what diagnostics call it. Raises InputError with every mistake found."""
    reader = _Reader(parse(name, text), environ)
    users = reader.users()
    if reader.diagnostics:
        raise InputError(reader.diagnostics)
    return LocalUsers.of(users)


class _Reader:
    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self.diagnostics = list(document.diagnostics)

    def users(self) -> dict[str, Secret]:
        root = self._document.root
        if root is None or (isinstance(root, Scalar) and not root.text):
            return {}
        if not isinstance(root, Entries):
            self._mistake(root, "E103", "a map of users is expected here", "write  name: password")
            return {}
        found = {key.text: self._secret(key, node) for key, node in root}
        return {user: secret for user, secret in found.items() if secret is not None}

    def _secret(self, key: Scalar, node: Node) -> Secret | None:
        name, at, _ = key.text.partition("@")
        if at or ":" in key.text:
            name = name.removeprefix("sip:").removeprefix("sips:").partition(":")[0]
            help = f"write {name or 'alice'}: the domain a user belongs to is the realm of auth:"
            self._mistake(key, "E106", f"{key.text!r} is not a user name: phones send it without a domain", help)
            return None
        if isinstance(node, Entries) and len(node) == 1:
            (inner, value) = next(iter(node))
            if inner.text == "ha1":
                return self._hashes(value)
            if inner.text == "password":
                node = value
        password = self._text(node)
        if password is None:
            variable = _variable(node)
            if variable:
                self._mistake(node, "E105", f"environment variable {variable} is not set", f"set {variable}")
                return None
            help = "write a password, {password: ...}, {password: {env: NAME}} or {ha1: ...}"
            self._mistake(node, "E105", f"the password of {key.text!r} is expected here", help)
            return None
        return Secret(password)

    def _text(self, node: Node) -> str | None:
        """A text, or that of an environment variable; None for anything else and for nothing."""
        if isinstance(node, Entries) and set(node.entries) == {"env"}:
            name = node.get("env")
            return self._environ.get(name.text) or None if isinstance(name, Scalar) else None
        return node.text or None if isinstance(node, Scalar) else None

    def _hashes(self, node: Node) -> Secret | None:
        written: Any
        if isinstance(node, Entries):
            written = {key.text: value.text if isinstance(value, Scalar) else None for key, value in node}
        else:
            written = [item.text if isinstance(item, Scalar) else None for item in _each(node)]
        hashes = hashes_of(written)
        if hashes:
            return Secret(ha1=hashes)
        self._mistake(node, "E106", "ha1 takes 32 (MD5) or 64 (SHA-256) hexadecimal digits")
        return None

    def _mistake(self, node: Node, code: str, message: str, help: str = "") -> None:
        self.diagnostics.append(Diagnostic(self._document.name, node.line, node.column, code, message, help=help))


def _each(node: Node) -> tuple[Node, ...]:
    return tuple(node) if isinstance(node, Items) else (node,)


def _variable(node: Node) -> str:
    """The environment variable that a value is to come from, '' where none is named."""
    name = node.get("env") if isinstance(node, Entries) and set(node.entries) == {"env"} else None
    return name.text if isinstance(name, Scalar) else ""
