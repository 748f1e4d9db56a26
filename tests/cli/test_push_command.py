"""`orchestrator push` against an admin interface: what is sent, what is shown, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest
import urllib3
from click.testing import CliRunner, Result

from orchestrator.app import Server
from orchestrator.cli.push import command
from orchestrator.core.jobs import Job
from orchestrator.packages.push_service import ChosenPush, PushServiceKind
from orchestrator.packages.service import NoSettings
from orchestrator.settings import Settings
from orchestrator.sip.push import Push, Pushed, PushPolicy, PushService
from orchestrator.site import read_site
from orchestrator.testing.api_stage import TOKEN as BEARER
from orchestrator.testing.api_stage import ApiStage
from orchestrator.testing.sockets import SocketPhone, wait_until
from orchestrator.testing.world import World

TOKEN = "7d3f0000000000000000000000c2a1"
PARAMETERS = f";pn-provider=apns;pn-param=DEF123GHIJ.com.example.app.voip;pn-prid={TOKEN}"


class Site:
    """A server with phones of bob's, and what its push service was asked for."""

    def __init__(self) -> None:
        policy = PushPolicy((PushService("apple", "apns", teams=("DEF123GHIJ",)),), per_phone=3, unserved="register")
        self.world = World(push=policy)
        self.world.on_job = self.answer
        self.pushes: list[Push] = []
        self.says: Callable[[Push], Any] = lambda push: Pushed("sent", id="5F2A")
        self.stage = ApiStage(world=self.world)
        self.url = self.stage.serve()

    def register(self, host: str, parameters: str) -> None:
        self.world.phone("bob@example.com", host, parameters=parameters).register()
        self.world.run()

    def answer(self, job: Job) -> Any:
        if isinstance(job.effect, Push):
            self.pushes.append(job.effect)
            return self.says(job.effect)
        return self.world.LATER

    def ask(self, *arguments: str) -> Result:
        """In a thread: the server it asks is in this one."""
        asked = [*arguments, "--admin", self.url]
        result = gevent.get_hub().threadpool.apply(CliRunner().invoke, (command, asked), {"standalone_mode": False})
        assert isinstance(result, Result)
        return result

    def post(self, body: bytes, content_type: str = "application/json") -> int:
        def ask() -> int:
            headers = {"Content-Type": content_type, "Authorization": f"Bearer {BEARER}"}
            pool = urllib3.PoolManager(retries=False)
            return pool.request("POST", f"http://{self.url}/push", body=body, headers=headers).status

        status = gevent.get_hub().threadpool.apply(ask)
        assert isinstance(status, int)
        return status


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("ADMIN_TOKEN", BEARER)
    made = Site()
    yield made
    made.stage.close()


def test_each_phone_is_pushed_to_and_the_answers_are_shown(site: Site) -> None:
    site.register("10.0.0.5", "")
    site.register("10.0.0.7", PARAMETERS)
    done = site.ask("--to", "bob@example.com", "--data", "from=alice@example.com", "--data", "n=1=2", "--ttl", "10s")
    assert done.return_value == 0
    assert "apple      com.example.app 7d3f…c2a1 (awake): sent, id 5F2A\n" in done.output
    assert "-          sip:bob@10.0.0.5:5060: its Contact names no push service (pn-provider, pn-prid)\n" in done.output
    [push] = site.pushes
    assert (push.kind, push.ttl, push.aor, push.call) == ("call", 10.0, "bob@example.com", "")
    assert push.data == {"from": "alice@example.com", "n": "1=2"} and push.address.token == TOKEN


def test_a_phone_that_sleeps_is_named_so_and_no_token_is_shown(site: Site) -> None:
    site.register("10.0.0.7", PARAMETERS)
    site.world.run(60)
    done = site.ask("--to", "sip:bob@EXAMPLE.com", "--kind", "refresh", "--json")
    [line] = done.output.splitlines()
    phone = json.loads(line)
    assert phone["asleep"] is True and phone["service"] == "apple" and phone["outcome"] == "sent"
    assert TOKEN not in done.output and "pn-prid=***" in phone["contact"] and phone["token"] == "7d3f…c2a1"
    assert site.pushes[0].kind == "refresh"


def test_a_dead_token_is_told_and_the_contact_goes(site: Site) -> None:
    site.register("10.0.0.7", PARAMETERS)
    site.says = lambda push: Pushed("dead", "410 Unregistered")
    done = site.ask("--to", "bob@example.com")
    assert done.return_value == 1 and "dead, 410 Unregistered" in done.output
    again = site.ask("--to", "bob@example.com")
    assert again.exit_code == 1 and "no phone is registered as bob@example.com" in str(again.exception)


def test_no_more_than_per_phone_are_sent(site: Site) -> None:
    site.register("10.0.0.7", PARAMETERS)
    outcomes = [site.ask("--to", "bob@example.com").return_value for _ in range(4)]
    assert outcomes == [0, 0, 0, 1] and len(site.pushes) == 3


def test_a_phone_of_an_app_that_nobody_serves_is_named(site: Site) -> None:
    site.register("10.0.0.7", ";pn-provider=fcm;pn-param=shop;pn-prid=x:" + "y" * 40)
    done = site.ask("--to", "bob@example.com")
    assert done.return_value == 1 and site.pushes == []
    assert "not sent, nothing under push: services: serves fcm and 'shop'" in done.output


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (";pn-provider=fcm;pn-param=shop", "its Contact has no pn-prid"),
        (";pn-param=shop;pn-prid=abc", "its Contact has no pn-provider"),
        (";pn-provider;pn-param=shop", "its Contact names no push service (pn-provider, pn-prid)"),
        (
            ";pn-provider=apns;pn-param=OTHER12345.com.example.shop.voip;pn-prid=00ff",
            "nothing under push: services: serves apns and 'com.example.shop' of team OTHER12345",
        ),
    ],
)
def test_what_keeps_a_phone_from_pushes_is_told(site: Site, parameters: str, told: str) -> None:
    site.register("10.0.0.7", parameters)
    assert told in site.ask("--to", "bob@example.com").output


def test_a_push_service_without_an_answer_is_waited_for_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.runtime.pushes.PATIENCE", 0.05)
    site.register("10.0.0.7", PARAMETERS)
    site.says = lambda push: site.world.LATER
    done = site.ask("--to", "bob@example.com")
    assert done.return_value == 1 and "no answer yet" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "bob"), "'bob' is not an address of the form user@domain; write bob@example.com"),
        (("--to", "bob@example.com", "--data", "x"), "'x' is not KEY=VALUE; write from=alice@example.com"),
        (("--to", "bob@example.com", "--ttl", "9"), "'9' is not a time up to 672h; write 30s"),
        (("--to", "bob@example.com", "--kind", "ring"), "'ring' is not one of 'call', 'message'"),
    ],
)
def test_mistakes_of_the_command_line(arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2 and message in done.output


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"to": "bob"}', 400),
        (b'{"to": "b@e\\u0000"}', 400),
        (b'{"to": "b@example.com", "kind": "ring"}', 400),
        (b'{"to": "b@example.com", "kind": ["call"]}', 400),
        (b'{"to": "b@example.com", "ttl": -1}', 400),
        (b'{"to": "b@example.com", "ttl": 1e99}', 400),
        (b'{"to": "b@example.com", "ttl": NaN}', 400),
        (b'{"to": "b@example.com", "ttl": true}', 400),
        (b'{"to": "b@example.com", "data": []}', 400),
        (b'{"to": "b@example.com", "token": "x"}', 400),
        (b'{"to": "b@example.com"}', 404),
        (b"[" * 10_000, 400),
        (b" " * 20_000, 413),
        (b"\xff\xfe", 400),
    ],
)
def test_odd_requests_are_refused(site: Site, body: bytes, status: int) -> None:
    assert site.post(body) == status and site.pushes == []


def test_a_busy_server_pushes_to_nobody_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.runtime.pushes.BUSY", 0.05)
    site.register("10.0.0.7", PARAMETERS)
    waiting: list[Callable[..., None]] = []
    monkeypatch.setattr(site.stage.actions.pushes, "_turn", waiting.append)
    done = site.ask("--to", "bob@example.com")
    assert done.exit_code == 1 and "try again" in str(done.exception)
    waiting[0](site.world.now)
    assert site.pushes == [] and site.world.engine.jobs == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_web_page_of_a_stranger_cannot_push(site: Site, content_type: str) -> None:
    site.register("10.0.0.7", PARAMETERS)
    assert site.post(b'{"to": "bob@example.com"}', content_type) == 415 and site.pushes == []


class Told:
    """A push service in this process."""

    def __init__(self, _: object) -> None: ...

    def check(self) -> Sequence[str]:
        return ()

    def start(self) -> None: ...

    def server_of(self, push: Push) -> str:
        return ""

    def send(self, push: Push) -> Pushed:
        return Pushed("sent", id=f"{push.kind} to {push.address.token}")

    def stop(self) -> None: ...


def test_the_whole_way_through_a_running_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", BEARER)
    kind = PushServiceKind("told", "For tests.", Told)
    service = ChosenPush(kind, PushService("told", "told"), NoSettings(), timeout=5.0, concurrency=1)
    (tmp_path / "a.flow.yaml").write_text("flowlang: 1\n")
    values = {
        "sip": {"listen": ["udp:127.0.0.1:0"], "domains": ["example.com"]},
        "location": "memory:",
        "flows": [str(tmp_path)],
        "push": {"services": {"told": service}},
        "admin": {"listen": "127.0.0.1:0", "token": BEARER},
    }
    with ExitStack() as stack:
        server = Server(read_site(Settings.model_validate(values), {}), stack)
        server.start()
        phone = SocketPhone("bob@example.com", server.listening.bound[0], parameters=";pn-provider=told;pn-prid=t1")
        stack.callback(phone.close)
        phone.register()
        assert wait_until(lambda: phone.registered == [200])
        arguments = ["--to", "bob@example.com", "--kind", "refresh", "--admin", f"127.0.0.1:{server.admin.address[1]}"]
        done = gevent.get_hub().threadpool.apply(CliRunner().invoke, (command, arguments), {"standalone_mode": False})
    assert done.output == "told        … (awake): sent, id refresh to t1\n"
