"""Asking a running server: its API on the admin interface, found through the configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import click
import urllib3

from orchestrator.api.token_file import TokenFileError, read_token
from orchestrator.cli._output import config_option, plain, settings_of
from orchestrator.settings import Settings

PREFIX: Final = "/api/v1/"
PAGE: Final = 1000
"""Items asked for at once; the server gives no more."""

TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)
"""Seconds. The server is near and answers between two calls; a stream has a sign of life every second."""
PATIENCE = urllib3.Timeout(connect=3.0, read=60.0)
"""The same where it reads files or waits for others, and for streams of events with a sign of life every 15 s."""

_admin_option: Callable[[Any], Any] = click.option(
    "--admin",
    "url",
    default="",
    metavar="HOST:PORT|URL",
    help="The server's admin interface. Default: the one in the configuration.",
)
_token_option: Callable[[Any], Any] = click.option(
    "--token",
    default="",
    envvar="ORCHESTRATOR_TOKEN",
    metavar="TOKEN",
    help="The admin token. Default: ORCHESTRATOR_TOKEN, then the configuration's token, then its token file.",
)


def asks_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with --admin, --token and --config, which is given the `client` that they mean."""

    @wraps(command)
    def connected(*args: Any, url: str, token: str, config: Path | None, **options: Any) -> Any:
        return command(*args, client=AdminClient(settings_of(config), url, token), **options)

    wrapped: Callable[..., Any] = config_option(_token_option(_admin_option(connected)))
    return wrapped


CURES: Final[Mapping[str, str]] = {
    "token.required": "Give the token with --token or ORCHESTRATOR_TOKEN, or name the server's configuration with -c.",
    "call.unknown": "`orchestrator calls` lists those that live.",
    "registration.unknown": "`orchestrator registrations` lists those that are there.",
    "gateway.unknown": "`orchestrator gateways` lists them.",
    "run.unknown": "The last runs are kept: `orchestrator trace` lists them.",
    "ban.unknown": "`orchestrator bans` lists those that last.",
    "event.unknown": "`orchestrator events catalogue` lists them.",
}
"""By the code of a refusal: what to do on the command line, in place of what the server says to programs."""


class AdminError(click.ClickException):
    """The server could not be asked, or refused: `problem` is what it said, empty where it said nothing."""

    def __init__(self, message: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.problem = problem or {}

    @property
    def code(self) -> str:
        """`call.unknown` and the like; '' where the server named none."""
        return str(self.problem.get("code", ""))


class AdminClient:
    """The API of one server. Paths are relative to /api/v1/, with their parts quoted by `part`; parameters that are ''
    are left out. All methods raise AdminError."""

    def __init__(self, settings: Settings, url: str = "", token: str = "") -> None:
        listen = settings.admin.listen
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104  # not to listen on
        host = f"[{host}]" if ":" in host else host
        self.url = _with_scheme(url.rstrip("/")) or f"http://{host}:{listen.port}"
        self._settings = settings
        self._token = token.strip()
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def get(self, path: str, **parameters: str) -> Any:
        """The answer's JSON."""
        return self._decoded(path, self._request("GET", path, parameters))

    def listed(self, path: str, most: int = PAGE, **parameters: str) -> dict[str, Any]:
        """The first `most` items of a list, page by page: {"node", "items", "total"}."""
        items: list[Any] = []
        cursor, answer = "", {}
        while len(items) < most:
            asked = {**parameters, "limit": str(min(PAGE, most - len(items))), "cursor": cursor}
            answer = self.get(path, **asked)
            items += answer["items"]
            cursor = answer.get("next") or ""
            if not cursor:
                break
        return {"node": answer.get("node"), "items": items, "total": answer.get("total", len(items))}

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None, **parameters: str) -> Any:
        """Have the server do something; the answer's JSON, None where there is none."""
        response = self._request(method, path, parameters, body, PATIENCE)
        return self._decoded(path, response) if response.status != 204 else response.release_conn()

    def follow(self, path: str, **parameters: str) -> Iterator[dict[str, Any]]:
        """The JSON lines of an answer that goes on, as they come."""
        for line in self._lines(path, self._request("GET", path, parameters)):
            if line:
                yield _object(line)

    def stream(self, path: str, **parameters: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Server-sent events as they come: the name of each and its JSON object. Ends when the server ends it."""
        accept = {"Accept": "text/event-stream"}
        response = self._request("GET", path, parameters, timeout=PATIENCE, headers=accept)
        event, data = "message", list[str]()
        for line in self._lines(path, response):
            text = line.decode("utf-8", "replace").rstrip("\r")
            if not text:
                if data:
                    yield event, _object("\n".join(data))
                event, data = "message", []
            field, _, value = text.partition(":")
            if field == "event":
                event = value.removeprefix(" ")
            elif field == "data":
                data.append(value.removeprefix(" "))

    def _lines(self, path: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        buffer = b""
        try:
            for chunk in response.stream(amt=None):
                *lines, buffer = (buffer + chunk).split(b"\n")
                yield from lines
        except (ValueError, urllib3.exceptions.HTTPError) as error:
            raise AdminError(f"{self._at(path)}: the server went away: {error}") from None
        finally:
            response.close()

    def _decoded(self, path: str, response: urllib3.BaseHTTPResponse) -> Any:
        try:
            return json.loads(response.read(decode_content=True))
        except (ValueError, urllib3.exceptions.HTTPError) as error:
            raise AdminError(f"{self._at(path)}: no answer that can be read: {error}") from None
        finally:
            response.release_conn()

    def _request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        timeout: urllib3.Timeout = TIMEOUT,
        headers: Mapping[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        query = urlencode({name: value for name, value in parameters.items() if value != ""})
        url = self._at(path) + (f"?{query}" if query else "")
        given = {**self._bearer(), **(headers or {})}
        try:
            response = self._pool.request(
                method, url, json=body, headers=given, preload_content=False, timeout=timeout, redirect=False
            )
        except (urllib3.exceptions.HTTPError, UnicodeError) as error:
            raise AdminError(
                f"no server answers at {self.url}: {_reason(error)}\n"
                "Is `orchestrator run` running, with this configuration? --admin names another one."
            ) from None
        if not 200 <= response.status < 300:
            raise self._refusal(response, self._at(path))
        return response

    def _at(self, path: str) -> str:
        return self.url + PREFIX + path

    def _bearer(self) -> dict[str, str]:
        token = self._token = self._token or self._known_token()
        if any(not 0x21 <= ord(char) <= 0x7E for char in token):
            raise click.BadParameter("a token has no spaces, and only ASCII", param_hint="--token")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _known_token(self) -> str:
        """What the configuration says; '' where it says nothing. The server may listen without one, too."""
        admin = self._settings.admin
        for secret in (admin.token, admin.read_token):
            if secret is not None:
                return secret.get_secret_value()
        if admin.token_file is None:
            return ""
        try:
            return read_token(admin.token_file) or ""
        except TokenFileError as error:
            raise AdminError(
                f"the token cannot be read: {error}\n--token or ORCHESTRATOR_TOKEN gives another one."
            ) from None

    def _refusal(self, response: urllib3.BaseHTTPResponse, url: str) -> AdminError:
        """What a refused request is told (RFC 9457)."""
        try:
            problem = json.loads(response.data)
            said = str(problem.get("detail") or problem["title"])
        except (ValueError, AttributeError, KeyError, urllib3.exceptions.HTTPError):
            return AdminError(f"{url} answers {response.status} {plain(response.reason or '')}".rstrip())
        if problem.get("code") == "path.unknown":
            said = "there is no such name, or the server is another version"
        if cure := CURES.get(problem.get("code", ""), problem.get("cure")):
            said += f"\n{cure}"
        return AdminError("\n".join(map(plain, said.split("\n"))), problem)


def _object(line: bytes | str) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


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
    """A piece of a path: names of runs hold a `#`. What a client would take for a step in the path is quoted whole."""
    quoted = quote(text, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _reason(error: Exception) -> str:
    """The last of the reasons that were wrapped in each other."""
    return str(error).rpartition(": ")[2] or type(error).__name__
