"""What happens in a test (`when:`), read from its file: each kind of act becomes a function of the story."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from os.path import normpath
from pathlib import Path
from typing import Any

from orchestrator.events.event import EventSpec
from orchestrator.flow.language.program import REQUESTS
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.yaml import Entries, Node, Scalar
from orchestrator.flow.run.charging import Alter, Disconnect, LowBalance
from orchestrator.testing.case_shapes import Shapes
from orchestrator.testing.parties import StoryCall, reserved
from orchestrator.testing.recordings import Recording
from orchestrator.testing.scenario import Scenario
from orchestrator.testing.switch.channel import LOUD, TONES

Act = Callable[[Scenario], object]

ACTS = (
    "invite",
    "send",
    "register",
    "unregister",
    "branch",
    "hangup",
    "refer",
    "dtmf",
    "speaks",
    "tone",
    "raise",
    "cgrates",
    "esl",
)
_SIDES = ("caller", "callee")


class Acts(Shapes):
    """Nodes to acts. Each method reads one kind and reports what is wrong with it."""

    def __init__(self, report: Report, folder: Path) -> None:
        super().__init__(report)
        self.folder = folder
        self.events: Mapping[str, EventSpec] = {}
        self.calls: list[str] = []
        """Names of the calls of the test so far."""

    def contact(self, node: Node | None) -> str:
        """The contact of a phone, at an address that phones may have."""
        text = self.text(node, "a contact")
        host = text.removeprefix("sip:").partition(";")[0].rpartition("@")[2].partition(":")[0]
        owner = reserved(host)
        if owner and node is not None:
            help = f"give the phone another address, for example {text.replace(host, '10.0.0.5')}"
            self.report.error("E106", f"{host} is the address of {owner} in a test", node, help)
        return text

    def act_invite(self, node: Node, _: Entries) -> Act | None:
        entries = self.entries(node, ("name", "from", "to", "headers", "password"), "invite")
        if entries is None:
            return None
        name = self.text(entries.get("name"), "the name of a call")
        if name in self.calls:
            self.report.error("E104", f"there is a call {name!r} already", entries.get("name") or node)
        self.calls += [name] if name else []
        caller, to = self.text(entries.get("from"), "from"), self.text(entries.get("to"), "to")
        headers = self.texts(entries.get("headers"), "headers")
        password = self.text(entries.get("password"), "password")
        return lambda story: story.invite(caller, to, headers, name, password)

    def act_send(self, node: Node, _: Entries) -> Act | None:
        entries = self.entries(node, ("method", "from", "to", "headers", "body", "password"), "send")
        if entries is None:
            return None
        method = self.choice(entries, "method", REQUESTS)
        sender, to = self.text(entries.get("from"), "from"), self.text(entries.get("to"), "to")
        headers, body = self.texts(entries.get("headers"), "headers"), self.text(entries.get("body"), "body")
        password = self.text(entries.get("password"), "password")
        return None if method is None else lambda story: story.send(method, sender, to, headers, body, password)

    def call_of(self, entries: Entries) -> Callable[[Scenario], StoryCall | None]:
        """The call an act is for by its `call:`, None for the last one."""
        name = self.call_name(entries.get("call"))
        return lambda story: story.call(name)

    def call_name(self, node: Node | None) -> str:
        name = self.text(node, "the name of a call")
        if node is not None and name not in self.calls:
            help = meant(name, self.calls) if self.calls else "name the call:  invite: {name: a, from: …, to: …}"
            self.report.error("E118", f"no call is named {name!r}", node, help)
        return name

    def act_register(self, node: Node, _: Entries) -> Act | None:
        entries = self.entries(node, ("aor", "contact", "expires", "password"), "register")
        if entries is None:
            return None
        aor, contact = self.text(entries.get("aor"), "aor"), self.contact(entries.get("contact"))
        expires = self.number(entries.get("expires"), "expires", 3600)
        password = self.text(entries.get("password"), "password")
        return lambda story: story.register(aor, contact, expires, password)

    def act_unregister(self, node: Node, _: Entries) -> Act | None:
        entries = self.entries(node, ("aor", "contact"), "unregister")
        if entries is None:
            return None
        aor, contact = self.text(entries.get("aor"), "aor"), self.contact(entries.get("contact"))
        return lambda story: story.register(aor, contact, 0)

    def act_branch(self, node: Node, act: Entries) -> Act | None:
        entries = self.entries(node, ("uri", "reply"), "branch")
        if entries is None:
            return None
        uri, code = self.text(entries.get("uri"), "uri", "*"), self.number(entries.get("reply"), "reply", 200)
        of = self.call_of(act)
        return lambda story: story.respond(uri, code, of(story))

    def act_hangup(self, node: Node, act: Entries) -> Act | None:
        side = self.text(node, "hangup")
        if side not in _SIDES:
            self.report.error("E106", f"{side!r} cannot hang up", node, "caller or callee")
            return None
        of = self.call_of(act)
        return lambda story: story.hangup(side, of(story))

    def act_refer(self, node: Node, act: Entries) -> Act | None:
        entries = self.entries(node, ("leg", "to", "instead_of"), "refer")
        if entries is None:
            return None
        leg, to = self.leg(entries), self.text(entries.get("to"), "to")
        other, of = self.call_name(entries.get("instead_of")), self.call_of(act)
        return lambda story: story.refer(leg, to, of(story), story.call(other))

    def act_dtmf(self, node: Node, act: Entries) -> Act | None:
        entries = self.entries(node, ("leg", "digit"), "dtmf")
        if entries is None:
            return None
        leg, digit = self.leg(entries), self.text(entries.get("digit"), "digit")
        of = self.call_of(act)
        return lambda story: story.press(leg, digit, of(story))

    def act_speaks(self, node: Node, act: Entries) -> Act | None:
        entries = self.entries(node, ("leg", "for", "level"), "speaks")
        if entries is None:
            return None
        leg, length = self.leg(entries), self.duration(entries.get("for"))
        level, of = self.number(entries.get("level"), "level", LOUD), self.call_of(act)
        return lambda story: story.speak(leg, 1.0 if length is None else length, of(story), level)

    def act_tone(self, node: Node, act: Entries) -> Act | None:
        entries = self.entries(node, ("leg", "tone"), "tone")
        if entries is None:
            return None
        leg, tone = self.leg(entries), self.choice(entries, "tone", TONES)
        of = self.call_of(act)
        return None if tone is None else lambda story: story.sound(leg, tone, of(story))

    def leg(self, entries: Entries) -> str:
        """Whose key or sound it is; the callee's unless told."""
        return self.choice(entries, "leg", _SIDES, "callee") or "callee"

    def act_raise(self, node: Node, act: Entries) -> Act | None:
        entries = self.entries(node, ("event", "data"), "raise")
        if entries is None:
            return None
        name = self.text(entries.get("event"), "event")
        spec = self.events.get(name)
        if spec is None:
            self.report.error("E112", f"unknown event {name!r}", node, meant(name, self.events))
            return None
        data = {key.text: item for key, item in self.entries(entries.get("data"), tuple(spec.attributes), "data") or ()}
        attributes = {
            attribute: _as(spec.attributes[attribute].type, data.get(attribute), self) for attribute in spec.attributes
        }
        of = self.call_of(act)
        return lambda story: story.raise_event(name, attributes, of(story))

    def act_cgrates(self, node: Node, act: Entries) -> Act | None:
        """`{disconnect: reason}`, `low_balance`, `{max_usage: 10s}`."""
        of = self.call_of(act)
        if isinstance(node, Scalar) and node.text == "low_balance":
            return lambda story: story.charged(LowBalance, of(story))
        entries = self.entries(node, ("disconnect", "max_usage"), "cgrates")
        if entries is None or len(list(entries)) != 1:
            self.report.error("E113", "CGRateS does one of disconnect, low_balance, max_usage", node)
            return None
        if "disconnect" in entries:
            reason = self.text(entries.get("disconnect"), "a reason")
            return lambda story: story.charged(partial(Disconnect, reason=reason), of(story))
        usage = self.duration(entries.get("max_usage"))
        return lambda story: story.charged(partial(Alter, usage=usage), of(story))

    def act_esl(self, node: Node, entries: Entries) -> Act | None:
        path = Path(normpath(self.folder / self.text(node, "esl")))
        legs = {
            key.text: self.text(uuid, "a uuid") for key, uuid in self.entries(entries.get("legs"), _SIDES, "legs") or ()
        }
        try:
            recording = Recording.load(path)
        except (OSError, ValueError) as error:
            self.report.error("E118", f"no recording {path}: {error}", node)
            return None
        self.legs(recording, entries.get("legs"), node)
        of = self.call_of(entries)
        return lambda story: story.replay(recording, legs, of(story))

    def legs(self, recording: Recording, node: Node | None, file: Node) -> None:
        """What is to be played, and whose channels it is about, has to be in the recording."""
        if not recording.events:
            self.report.error("E118", "there is no event in this recording", file, "record it again")
            return
        uuids = dict.fromkeys(event.uuid for event in recording.events if event.uuid)
        for _, uuid in node if isinstance(node, Entries) else ():
            if isinstance(uuid, Scalar) and uuid.text not in uuids:
                message = f"this recording has no channel {uuid.text!r}"
                self.report.error("E118", message, uuid, f"there is: {', '.join(uuids) or 'none'}")


def _as(type: str, node: Node | None, reader: Shapes) -> Any:
    """An attribute's value: text and digits as written, the rest by its type; null where it is not given."""
    if node is None:
        return None
    if type in ("text", "digits") and isinstance(node, Scalar):
        return node.text
    return reader.value(node)
