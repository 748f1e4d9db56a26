"""The tokens of the admin interface as the configuration has them, or as a file beside the data keeps one."""

from __future__ import annotations

from loguru import logger
from pydantic import SecretStr

from orchestrator.api.access import Access
from orchestrator.api.token_file import TokenFileError, make_token, token_of
from orchestrator.settings.model import AdminSettings


def admin_access(admin: AdminSettings) -> tuple[Access, str]:
    """Who may ask; and what the terminal is to be told once, where a token has been made: the log never hears it."""
    token, read_token = _value(admin.token), _value(admin.read_token)
    if token is not None or read_token is not None or admin.token_file is None:
        return Access(token, read_token), ""
    try:
        token, made = token_of(admin.token_file)
    except TokenFileError as error:
        help = "make the folder writable, or set admin: {token: {env: ADMIN_TOKEN}}"
        logger.bind(reason=str(error), help=help).warning("token_for_this_run")
        token = make_token()
        return Access(token), f"admin token of this run: {token}\n"
    return Access(token), f"admin token, kept in {admin.token_file}: {token}\n" if made else ""


def _value(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
