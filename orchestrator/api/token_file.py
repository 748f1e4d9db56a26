"""The token of a server whose configuration has none: drawn at its first start and kept in a file beside its data."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from secrets import token_hex, token_urlsafe

_OCTETS = 32
_TOKEN = re.compile(r"[\x21-\x7e]{16,512}")


class TokenFileError(Exception):
    """The file cannot be used; the text says why."""


def read_token(file: Path) -> str | None:
    """The token of the file, None where there is no file. Raises TokenFileError."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TokenFileError(f"{file}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as stream:
        kind = os.fstat(descriptor)
        if not stat.S_ISREG(kind.st_mode):
            raise TokenFileError(f"{file} is no file")
        if kind.st_mode & 0o077:
            raise TokenFileError(f"{file} can be read by others: chmod 600 {file}")
        text = stream.read(1024).decode("ascii", "replace").strip()
    if _TOKEN.fullmatch(text) is None:
        raise TokenFileError(f"{file} holds no token: remove it, and the next start makes a new one")
    return text


def make_token() -> str:
    """A new one, of 256 random bits."""
    return token_urlsafe(_OCTETS)


def keep_token(file: Path, token: str) -> bool:
    """Write the file, readable by its owner alone; False where it is there already. Whoever reads it meanwhile finds
    the whole token or no file. Raises TokenFileError."""
    made = file.with_name(f"{file.name}.{token_hex(8)}")  # in a container, each start has the same process id
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(token + "\n")
    except OSError as error:
        made.unlink(missing_ok=True)  # the disk is full
        raise TokenFileError(f"{file}: {error.strerror}") from None
    try:
        os.link(made, file)
    except FileExistsError:
        return False
    except OSError as error:
        raise TokenFileError(f"{file}: {error.strerror}") from None
    finally:
        made.unlink()
    return True


def token_of(file: Path) -> tuple[str, bool]:
    """The token of the file, which is made where there is none; whether it was made. Raises TokenFileError."""
    found = read_token(file)
    if found is not None:
        return found, False
    token = make_token()
    if keep_token(file, token):
        return token, True
    found = read_token(file)  # another start was faster
    if found is None:
        raise TokenFileError(f"{file} comes and goes")
    return found, False
