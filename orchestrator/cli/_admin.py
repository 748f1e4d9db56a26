"""Asking a running server: the admin interface, found through the configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import click
import urllib3

from orchestrator.api.token_file import TokenFileError, read_token
from orchestrator.settings import Settings

admin_option: Callable[[Any], Any] = click.option(
    "--admin",
    "url",
    default="",
    metavar="HOST:PORT|URL",
    help="The server's admin interface. Default: the one in the configuration.",
)

TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)
"""Seconds. The server is near and answers between two calls; it sends a sign of life every second."""


class AdminError(click.ClickException):
    """The server could not be asked, or refused."""


class AdminClient:
    """One server's admin interface."""

    def __init__(self, settings: Settings, url: str = "") -> None:
        listen = settings.admin.listen
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104  # not to listen on
        host = f"[{host}]" if ":" in host else host
        self.url = _with_scheme(url.rstrip("/")) or f"http://{host}:{listen.port}"
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)
        token = _token_of(settings)
        self._bearer = {} if token is None else {"Authorization": f"Bearer {token}"}

    def ask(self, path: str, **parameters: str) -> Any:
        """The answer's JSON. `path` is `/api/v1/runs/…` with its parts quoted by `part`. Raises AdminError."""
        response = self._request(path, parameters)
        try:
            return json.loads(response.read(decode_content=True))
        except (ValueError, urllib3.exceptions.HTTPError) as error:
            raise AdminError(f"{self.url}{path}: no answer that can be read: {error}") from None
        finally:
            response.release_conn()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Have the server do something; the answer's JSON. Raises AdminError."""
        response = self._request(path, {}, "POST", json=dict(body))
        try:
            return json.loads(response.data)
        except (ValueError, urllib3.exceptions.HTTPError) as error:
            raise AdminError(f"{self.url}{path}: no answer that can be read: {error}") from None

    def delete(self, path: str, **parameters: str) -> None:
        """Have the server forget something. Raises AdminError."""
        self._request(path, parameters, "DELETE").release_conn()

    def follow(self, path: str, **parameters: str) -> Iterator[dict[str, Any]]:
        """The JSON lines of an answer that goes on, as they come. Raises AdminError."""
        response = self._request(path, parameters)
        buffer = b""
        try:
            for chunk in response.stream(amt=None):
                *lines, buffer = (buffer + chunk).split(b"\n")
                yield from (json.loads(line) for line in lines if line)
        except (ValueError, urllib3.exceptions.HTTPError) as error:
            raise AdminError(f"{self.url}{path}: the server went away: {error}") from None
        finally:
            response.close()

    def _request(
        self, path: str, parameters: Mapping[str, str], method: str = "GET", json: Any = None
    ) -> urllib3.BaseHTTPResponse:
        fields = dict(parameters) if json is None else None
        try:
            response = self._pool.request(
                method, self.url + path, fields=fields, json=json, headers=self._bearer, preload_content=False
            )
        except (urllib3.exceptions.HTTPError, UnicodeError) as error:
            raise AdminError(
                f"no server answers at {self.url}: {_reason(error)}\n"
                "Is `orchestrator run` running, with this configuration? --admin names another one."
            ) from None
        if response.status not in (200, 204):
            raise AdminError(_refusal(response, self.url + path))
        return response


def _token_of(settings: Settings) -> str | None:
    """The token of the configuration, or the one that the server keeps in its file; None where there is none that can
    be read here. Raises AdminError."""
    for secret in (settings.admin.token, settings.admin.read_token):
        if secret is not None:
            return secret.get_secret_value()
    try:
        return read_token(settings.admin.token_file) if settings.admin.token_file is not None else None
    except TokenFileError as error:
        raise AdminError(str(error)) from None


def _with_scheme(url: str) -> str:
    """`127.0.0.1:8080` as the URL that is meant. Raises click.BadParameter for what is no address."""
    given = url if "://" in url or not url else f"http://{url}"
    try:
        parsed = urllib3.util.parse_url(given)
    except urllib3.exceptions.LocationParseError:
        parsed = urllib3.util.Url()
    if given and (parsed.scheme not in ("http", "https") or not parsed.host):
        raise click.BadParameter(f"{url!r} is not an address; write 127.0.0.1:8080", param_hint="--admin")
    return given


def part(text: str) -> str:
    """A piece of a path: names of runs hold a `#`."""
    return quote(text, safe="")


def _reason(error: Exception) -> str:
    """The last of the reasons that were wrapped in each other."""
    return str(error).rpartition(": ")[2] or type(error).__name__


def _refusal(response: urllib3.BaseHTTPResponse, url: str) -> str:
    """What a refused request is told, as the API writes it."""
    try:
        told = json.loads(response.data)
        said = str(told.get("detail") or told["title"])
        return f"{said}\n{told['cure']}" if told.get("cure") else said
    except (ValueError, AttributeError, KeyError):
        return f"{url} answers {response.status} {response.reason or ''}".rstrip()
