"""docker-compose.yml, config/orchestrator.yml and config/freeswitch have to agree on ports, names and secrets.

There is no Docker here: the files are read as Docker, the orchestrator and FreeSWITCH would read them. Of FreeSWITCH's
preprocessor that is `set`, `env-set`, `include` and `$${…}` (switch_xml.c).
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from orchestrator.app import LINGER
from orchestrator.cli import certificate
from orchestrator.flow.language.limits import Limits
from orchestrator.settings import FACTORY_PASSWORD, Settings, load_settings

REPOSITORY = Path(__file__).parents[2]
FREESWITCH = REPOSITORY / "config" / "freeswitch"
PASSWORD = "s3cret-of-the-operator"
OUTSIDE = {"ESL_PASSWORD": PASSWORD, "SIP_ADVERTISE": "203.0.113.7"}
"""The operator's environment."""

PRE_PROCESS = re.compile(r'\s*<X-PRE-PROCESS cmd="([a-z-]+)" data="([^"]*)"/>\s*')


def substituted(text: str, environ: dict[str, str]) -> str:
    """Compose's `${NAME}`, `${NAME:-default}` and `${NAME:?message}`; `$$` is a dollar."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        found = environ.get(name, "")
        if operator == ":?":
            assert found, f"{name}: {rest}"
        return found or (rest if operator == ":-" else "")

    return re.sub(r"(?<!\$)\$\{([A-Z_]+)(?:(:[-?])([^}]*))?\}", value, text).replace("$$", "$")


def read_compose(environ: dict[str, str]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(substituted((REPOSITORY / "docker-compose.yml").read_text(), environ))
    return loaded


class FreeSwitch:
    """The document FreeSWITCH makes of its configuration in a given environment."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.variables = {"local_ip_v4": "192.0.2.99"}
        self.asked: set[str] = set()
        self.document = ElementTree.fromstring(self._preprocess(FREESWITCH / "freeswitch.xml"))

    def _preprocess(self, path: Path) -> str:
        return "".join(self._line(path, self._expand(line)) for line in path.read_text().splitlines(keepends=True))

    def _expand(self, line: str) -> str:
        return re.sub(r"\$\$\{(\w+)\}", lambda match: self.variables[match[1]], line)

    def _line(self, path: Path, line: str) -> str:
        directive = PRE_PROCESS.fullmatch(line)
        if directive is None:
            assert "X-PRE-PROCESS" not in line, f"{path}: FreeSWITCH takes this for a directive: {line}"
            return "" if "<?" in line else line
        command, data = directive.groups()
        if command == "include":
            found = sorted(path.parent.glob(data))
            assert found, f"{path}: nothing to include in {data}"
            return "".join(self._preprocess(one) for one in found)
        name, _, value = data.partition("=")
        if command == "env-set":
            self.asked.add(value.removeprefix("$"))
            value = self.environ.get(value.removeprefix("$"), self.variables[name])
        self.variables[name] = value
        return ""

    def params(self, path: str) -> dict[str, str]:
        return {p.get("name", ""): p.get("value", "") for p in self.document.iterfind(f"{path}//param")}

    def configuration(self, name: str) -> dict[str, str]:
        return self.params(f".//configuration[@name='{name}']")

    def acl(self, name: str) -> list[tuple[str, str]]:
        (found,) = self.document.iterfind(f".//list[@name='{name}']")
        assert found.get("default") == "deny"
        return [(node.get("type", ""), node.get("cidr", "")) for node in found]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_compose(OUTSIDE)


def settings_in(compose: dict[str, Any], folder: Path) -> Settings:
    """The orchestrator's settings as in its container; the certificate that it would find there is in `folder`."""
    environ = dict(compose["services"]["orchestrator"]["environment"])
    for name in ("TLS_CERTIFICATE", "TLS_KEY"):
        file = folder / Path(environ[name]).name
        file.touch()
        environ[name] = str(file)
    return load_settings(REPOSITORY / "config" / "orchestrator.yml", environ)


@pytest.fixture(scope="module")
def settings(compose: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_in(compose, tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def freeswitch(compose: dict[str, Any]) -> FreeSwitch:
    return FreeSwitch(compose["services"]["freeswitch"]["environment"])


@pytest.fixture(scope="module")
def profile(freeswitch: FreeSwitch) -> dict[str, str]:
    return freeswitch.params(".//profile[@name='orchestrator']")


def on_the_network(compose: dict[str, Any]) -> list[str]:
    """The services that have an address."""
    return [name for name, service in compose["services"].items() if "networks" in service]


def address_of(compose: dict[str, Any], service: str) -> str:
    address: str = compose["services"][service]["networks"]["telephony"]["ipv4_address"]
    return address


# --- the orchestrator's side ------------------------------------------------------------------------------------------


def test_the_orchestrator_listens_where_the_network_puts_it(compose: dict[str, Any], settings: Settings) -> None:
    listens = settings.sip.listen
    assert {listen.address.host for listen in listens} == {address_of(compose, "orchestrator")}
    assert [listen.transport for listen in listens] == ["udp", "tcp", "tls", "wss"]
    kinds = ["udp" if listen.transport == "udp" else "tcp" for listen in listens]
    inside = [f"{listen.address.port}/{kind}" for listen, kind in zip(listens, kinds, strict=True)]
    published = compose["services"]["orchestrator"]["ports"]
    assert [f"{port.partition('/')[0]}:{port}" for port in inside] == [port for port in published if "/" in port]
    (exposed,) = re.findall(r"^EXPOSE (.*)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert exposed.split() == inside
    assert str(settings.sip.advertise) == "203.0.113.7:0"


def test_addresses_are_of_the_network_and_not_its_gateways(compose: dict[str, Any]) -> None:
    (subnet,) = (ip_network(pool["subnet"]) for pool in compose["networks"]["telephony"]["ipam"]["config"])
    addresses = [ip_address(address_of(compose, name)) for name in on_the_network(compose)]
    assert len(set(addresses)) == len(addresses)
    assert all(one in subnet and one not in (subnet[0], subnet[1], subnet[-1]) for one in addresses)


def test_only_freeswitch_is_trusted(compose: dict[str, Any], settings: Settings) -> None:
    trusted = [network for network in settings.sip.trust if not network.is_loopback]
    assert trusted == [ip_network(address_of(compose, "freeswitch"))]


def test_registrations_are_kept_on_a_volume(compose: dict[str, Any], settings: Settings) -> None:
    targets = [volume.split(":")[1] for volume in compose["services"]["orchestrator"]["volumes"]]
    folder = str(Path(settings.location.removeprefix("sqlite:///")).parent)
    assert folder in targets
    assert "location" in compose["volumes"]
    assert f"install -d -o orchestrator {folder}" in (REPOSITORY / "Dockerfile").read_text()


def test_a_certificate_is_made_before_the_first_start(compose: dict[str, Any]) -> None:
    maker, user = compose["services"]["certificate"], compose["services"]["orchestrator"]
    assert user["depends_on"] == {"certificate": {"condition": "service_completed_successfully"}}
    command, folder, *options = maker["command"]
    assert command == "certificate"
    environ = user["environment"]
    assert environ["TLS_CERTIFICATE"] == f"{folder}/{certificate.CERTIFICATE}"
    assert environ["TLS_KEY"] == f"{folder}/{certificate.KEY}"
    (volume,) = maker["volumes"]
    assert volume in user["volumes"]
    assert folder.startswith(volume.split(":")[1])
    parsed = certificate.command.make_context("certificate", [folder, *options]).params
    assert parsed["names"] == (address_of(compose, "orchestrator"), "203.0.113.7", "example.com")
    alone = read_compose({"ESL_PASSWORD": PASSWORD})["services"]["certificate"]["command"]
    assert alone[-3] == "localhost"


def test_admin_is_published_to_this_machine_only(compose: dict[str, Any], settings: Settings) -> None:
    service = compose["services"]["orchestrator"]
    port = settings.admin.listen.port
    assert f"127.0.0.1:{port}:{port}" in service["ports"]
    assert f"127.0.0.1:{port}/healthz" in " ".join(service["healthcheck"]["test"])


def test_every_variable_given_is_one_that_is_read(compose: dict[str, Any], freeswitch: FreeSwitch) -> None:
    written = re.sub(r"#.*", "", (REPOSITORY / "config" / "orchestrator.yml").read_text())
    read = set(re.findall(r"\{env: ([A-Z_]+)", written))
    assert set(compose["services"]["orchestrator"]["environment"]) == read
    assert set(compose["services"]["freeswitch"]["environment"]) <= freeswitch.asked


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (REPOSITORY / source).exists() or source == "./flows"


def test_a_drain_is_not_cut_short(compose: dict[str, Any], settings: Settings) -> None:
    grace = compose["services"]["orchestrator"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > 64 * settings.sip.timers.t1
    assert int(grace.removesuffix("s")) > settings.stop.ringing + 2 * Limits().grace + 3 * LINGER


# --- both sides -------------------------------------------------------------------------------------------------------


def test_the_event_socket_is_where_the_orchestrator_looks(
    compose: dict[str, Any], settings: Settings, freeswitch: FreeSwitch
) -> None:
    server, socket = settings.freeswitch["fs1"], freeswitch.configuration("event_socket.conf")
    assert server.host == address_of(compose, "freeswitch")
    assert socket["listen-ip"] == "0.0.0.0"
    assert server.port == int(socket["listen-port"])
    assert server.password.get_secret_value() == socket["password"] == PASSWORD


def test_the_event_socket_answers_the_orchestrator_and_the_health_check(
    compose: dict[str, Any], freeswitch: FreeSwitch
) -> None:
    listed = freeswitch.acl(freeswitch.configuration("event_socket.conf")["apply-inbound-acl"])
    assert listed == [("allow", f"{address_of(compose, 'orchestrator')}/32"), ("allow", "127.0.0.0/8")]
    command = compose["services"]["freeswitch"]["healthcheck"]["test"][1]
    port = freeswitch.configuration("event_socket.conf")["listen-port"]
    assert f'fs_cli -H 127.0.0.1 -P {port} -p "$ESL_PASSWORD"' in command


def test_calls_go_to_the_profile_and_come_from_the_orchestrator_alone(
    compose: dict[str, Any], settings: Settings, freeswitch: FreeSwitch, profile: dict[str, str]
) -> None:
    assert settings.freeswitch["fs1"].sip_uri == f"sip:{profile['sip-ip']}:{profile['sip-port']}"
    assert freeswitch.acl(profile["apply-inbound-acl"]) == [("allow", f"{address_of(compose, 'orchestrator')}/32")]
    assert freeswitch.document.find(f".//context[@name='{profile['context']}']") is not None


def test_only_rtp_is_published_and_all_of_it(
    compose: dict[str, Any], freeswitch: FreeSwitch, profile: dict[str, str]
) -> None:
    switch = freeswitch.configuration("switch.conf")
    first, last = int(switch["rtp-start-port"]), int(switch["rtp-end-port"])
    assert compose["services"]["freeswitch"]["ports"] == [f"{first}-{last}:{first}-{last}/udp"]
    assert first % 2 == last % 2 == 0, "FreeSWITCH rounds odd ports"
    assert int(switch["max-sessions"]) <= (last - first) // 2 + 1
    assert profile["ext-rtp-ip"] == "203.0.113.7"
    alone = read_compose({"ESL_PASSWORD": PASSWORD})["services"]["freeswitch"]["environment"]
    assert alone["EXTERNAL_RTP_IP"] == address_of(compose, "freeswitch")


def test_the_outside_address_counts_in_the_sdp(compose: dict[str, Any], profile: dict[str, str]) -> None:
    """FreeSWITCH uses ext-rtp-ip beside an ext-sip-ip only, and not towards peers in its local network, which is where
    the orchestrator is (switch_core_media_check_nat)."""
    assert profile["ext-sip-ip"] == profile["sip-ip"], "SIP itself stays inside"
    assert ip_address(address_of(compose, "orchestrator")) not in ip_network(profile["local-network-acl"])


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_compose_does_not_start_without_a_password() -> None:
    with pytest.raises(AssertionError, match="ESL_PASSWORD"):
        read_compose({})


def test_no_secret_and_no_factory_password_stands_in_the_files() -> None:
    files = [REPOSITORY / "docker-compose.yml", REPOSITORY / "Dockerfile", *FREESWITCH.rglob("*.xml")]
    for path in files:
        assert FACTORY_PASSWORD not in path.read_text(), path


def test_without_a_password_freeswitch_makes_one_up() -> None:
    text = (FREESWITCH / "freeswitch.xml").read_text()
    assert text.index('cmd="exec-set" data="esl_password=head -c 18 /dev/urandom') < text.index("$ESL_PASSWORD")


# --- FreeSWITCH's side ------------------------------------------------------------------------------------------------


def test_a_channel_is_named_as_its_call(profile: dict[str, str]) -> None:
    assert profile["inbound-use-callid-as-uuid"] == profile["outbound-use-uuid-as-callid"] == "true"


def test_a_silent_phone_delays_nothing(profile: dict[str, str]) -> None:
    assert profile["rtp-timer-name"] == "soft"


MODULE_OF = {
    "answer": "mod_dptools",
    "bridge": "mod_dptools",
    "export": "mod_dptools",
    "hangup": "mod_dptools",
    "park": "mod_dptools",
    "pre_answer": "mod_dptools",
    "set": "mod_dptools",
    "XML": "mod_dialplan_xml",
    "spandsp.conf": "mod_spandsp",
    "avmd.conf": "mod_avmd",
    "sofia.conf": "mod_sofia",
    "event_socket.conf": "mod_event_socket",
    "logfile.conf": "mod_logfile",
}


def test_what_is_used_is_loaded_and_what_is_configured_too(freeswitch: FreeSwitch, profile: dict[str, str]) -> None:
    loaded = {module.get("module") for module in freeswitch.document.iter("load")}
    used = {action.get("application", "") for action in freeswitch.document.iter("action")}
    used |= {action.get("application", "") for action in freeswitch.document.iter("anti-action")} | {
        profile["dialplan"]
    }
    core = {"switch.conf", "acl.conf", "modules.conf"}
    used |= {conf.get("name", "") for conf in freeswitch.document.iter("configuration")} - core
    assert {MODULE_OF[name] for name in used} <= loaded
    assert {"mod_commands", "mod_tone_stream", "mod_sndfile"} <= loaded, (
        "api commands, tones and WAV files of the flows"
    )


def actions_for(
    freeswitch: FreeSwitch, user: str, host: str = "example.com", call: str = "c-42", media: str = ""
) -> dict[str, str]:
    """Application → data of the last one, following the dialplan as mod_dialplan_xml does; {} for a refused call."""
    context = freeswitch.document.find(".//context")
    assert context is not None
    channel = {
        "destination_number": user,
        "${sip_h_X-Orchestrator-Call}": call,
        "${sip_h_X-Orchestrator-Media}": media,
        "${sip_from_host}": host,
        "${sip_req_user}": user,
        "${sip_to_user}@${sip_to_host}": f"{user}@{host}",
    }
    actions: dict[str, str] = {}
    for extension in context:
        (condition,) = extension.findall("condition")
        match = re.search(condition.get("expression", ""), channel[condition.get("field", "")])
        if match is None:
            if condition.find("anti-action") is not None:
                return {}
            continue
        for action in condition.findall("action"):
            name, data = action.get("application", ""), action.get("data", "")
            variable = data.partition("=")[0] if name in ("set", "export") else name
            actions[variable] = data.replace("$1", match[1]) if "$1" in data else data
        if extension.get("continue") != "true":
            break
    return actions


ORCHESTRATOR = "${sip_network_ip}:${sip_network_port}"


@pytest.mark.parametrize("user", ["bob", "*8", "+4930123456", "0123", "bob.smith_2"])
def test_a_call_goes_back_under_the_names_it_came_with(freeswitch: FreeSwitch, user: str) -> None:
    actions = actions_for(freeswitch, user)
    assert actions["bridge"] == f"sofia/orchestrator/{user}@{ORCHESTRATOR}"
    assert actions["nolocal:sip_invite_to_uri"] == f"nolocal:sip_invite_to_uri=<sip:{user}@example.com>"
    assert actions["nolocal:sip_invite_domain"] == "nolocal:sip_invite_domain=example.com"
    exported = "sip_h_X-Orchestrator-Call"
    assert actions[exported] == f"{exported}=${{{exported}}}"


@pytest.mark.parametrize(("media", "first"), [("answer", "answer"), ("early", "pre_answer")])
def test_a_call_that_is_to_be_held_stays_here(freeswitch: FreeSwitch, media: str, first: str) -> None:
    actions = actions_for(freeswitch, "park", media=media)
    assert list(actions)[-2:] == [first, "park"]
    assert "bridge" not in actions
    assert actions["playback_terminators"] == "playback_terminators=none"
    assert actions["codec_string"].startswith("codec_string=PCMA,PCMU"), "the fax detector knows 8 kHz only"


@pytest.mark.parametrize("media", ["", "answer early", "Answer", "${system(id)}"])
def test_no_other_word_holds_a_call(freeswitch: FreeSwitch, media: str) -> None:
    assert "park" not in actions_for(freeswitch, "bob", media=media)


STRANGE = [
    "bob,sofia/orchestrator/x",
    "a|b",
    "[x=y]bob",
    "{x=y}",
    "${system(id)}",
    "$1",
    "a:_:b",
    "a b",
    "a@b",
    "a>",
    "",
]


@pytest.mark.parametrize("user", STRANGE)
def test_nothing_a_caller_dials_becomes_a_dial_string(freeswitch: FreeSwitch, user: str) -> None:
    actions = actions_for(freeswitch, user)
    assert actions["bridge"] == f"sofia/orchestrator/call@{ORCHESTRATOR}"
    assert "nolocal:sip_invite_to_uri" not in actions


@pytest.mark.parametrize("host", [name for name in STRANGE if name != "a@b"])
def test_nothing_a_caller_claims_to_be_becomes_a_variable(freeswitch: FreeSwitch, host: str) -> None:
    assert not [name for name in actions_for(freeswitch, "bob", host) if name.startswith("nolocal:")]


@pytest.mark.parametrize("call", ["", "a b", "x" * 65, "${system(id)}", "a,b"])
def test_a_call_without_our_header_is_refused(freeswitch: FreeSwitch, call: str) -> None:
    assert actions_for(freeswitch, "bob", call=call) == {}


def test_ranges_sessions_and_ports_are_the_operators_on_both_sides(tmp_path: Path) -> None:
    """More calls: three names in .env. Other ports: two, and both programs read them."""
    wanted = {
        "FREESWITCH_RTP_START": "20000",
        "FREESWITCH_RTP_END": "20998",
        "FREESWITCH_MAX_SESSIONS": "500",
        "FREESWITCH_SIP_PORT": "5090",
        "FREESWITCH_ESL_PORT": "8031",
    }
    compose = read_compose(OUTSIDE | wanted)
    services = compose["services"]
    freeswitch = FreeSwitch(services["freeswitch"]["environment"])
    settings = settings_in(compose, tmp_path)
    assert services["freeswitch"]["ports"] == ["20000-20998:20000-20998/udp"]
    switch = freeswitch.configuration("switch.conf")
    assert [switch[name] for name in ("rtp-start-port", "rtp-end-port", "max-sessions")] == ["20000", "20998", "500"]
    profile = freeswitch.params(".//profile[@name='orchestrator']")
    assert settings.freeswitch["fs1"].sip_uri == f"sip:{profile['sip-ip']}:5090" and profile["sip-port"] == "5090"
    assert settings.freeswitch["fs1"].port == 8031
    assert freeswitch.configuration("event_socket.conf")["listen-port"] == "8031"
    assert "-P 8031 " in services["freeswitch"]["healthcheck"]["test"][1]


def test_a_held_party_hears_something(freeswitch: FreeSwitch) -> None:
    """Without the variable FreeSWITCH looks for local_stream://moh, which a small installation does not have."""
    music = actions_for(freeswitch, "bob")["hold_music"]
    assert music == "hold_music=tone_stream://v=-20;%(400,4600,425);loops=-1"


def test_beeps_of_all_usual_tones_are_heard(freeswitch: FreeSwitch) -> None:
    """With 4 detectors a real FreeSWITCH does not hear 440, 480, 490, 520, 800 and 1600 Hz; with 12 it does."""
    assert freeswitch.configuration("avmd.conf")["detectors_n"] == "12"


def test_every_line_of_freeswitch_has_its_reason() -> None:
    """Each setting follows a comment, alone or as one of a group."""
    explained = {"param", "load", "action", "anti-action", "list", "extension", "configuration", "profile", "context"}
    for path in FREESWITCH.rglob("*.xml"):
        parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
        text = re.sub(r"<\?.*\?>", "", path.read_text())
        for parent in ElementTree.fromstring(f"<file>{text}</file>", parser).iter():
            reason = parent.tag in ("condition", "profiles")  # explained with the extension, the file
            for child in parent:
                reason = reason or child.tag is ElementTree.Comment
                assert reason or child.tag not in explained, f"{path}: {child.attrib}"


@pytest.mark.parametrize("path", sorted(FREESWITCH.rglob("*.xml")), ids=lambda path: path.name)
def test_lines_of_freeswitch_are_short(path: Path) -> None:
    assert max(len(line) for line in path.read_text().splitlines()) <= 120
