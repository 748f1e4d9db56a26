"""The tokens of the admin interface as the configuration has them, or as a file beside the data keeps one."""

from __future__ import annotations

from dataclasses import dataclass

from loguru import logger
from pydantic import SecretStr

from orchestrator.api.access import Access
from orchestrator.api.token_file import TokenFileError, make_token, token_of
from orchestrator.settings.model import AdminSettings


@dataclass(frozen=True, slots=True)
class Notice:
    """What is said beside `ready` where a token has been made; '' for nothing. A journal or a file keeps what it is
    told, and others read it: they hear where the token is kept."""

    terminal: str = ""
    elsewhere: str = ""


def admin_access(admin: AdminSettings) -> tuple[Access, Notice]:
    """Who may ask, and what is said of it. The log never hears a token."""
    token, read_token = _value(admin.token), _value(admin.read_token)
    if token is not None or read_token is not None or admin.token_file is None:
        return Access(token, read_token), Notice()
    try:
        token, made = token_of(admin.token_file)
    except TokenFileError as error:
        help = "make the folder writable, or set admin: {token: {env: ADMIN_TOKEN}}"
        logger.bind(reason=str(error), help=help).warning("token_for_this_run")
        token = make_token()
        told = f"admin token of this run: {token}\n"
        return Access(token), Notice(told, told)  # it is nowhere else
    if not made:
        return Access(token), Notice()
    kept = f"kept in {admin.token_file}"
    return Access(token), Notice(f"admin token, {kept}: {token}\n", f"admin token made, {kept}\n")


def _value(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
