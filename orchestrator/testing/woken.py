"""Phones that were pushed, by the facts of a trace: what push services said, who woke up, and as which contact.

Tokens are masked in traces, so the phones of a test get others: `phone1`, `phone2` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.history import PhonePushed, PhoneWoke, PushEnded
from orchestrator.testing.case_text import bare, quoted, seconds_of

Fact = Mapping[str, Any]

_MASKED = re.compile(r"\b(pn-(?:prid|purr|tok|auth))=\*\*\*", re.IGNORECASE)
_PARAM = re.compile(r"\b(pn-param)=\*\*\*", re.IGNORECASE)


def without_parameters(contact: str) -> str:
    """`sip:bob@10.0.0.7:5060`, as facts about pushes name phones."""
    head, at, rest = contact.rpartition("@")
    return head + at + rest.partition(";")[0]


def has_push_address(contact: str) -> bool:
    return "pn-" in contact


def with_token(contact: str, token: str) -> str:
    """A contact as the trace has it, with this token."""
    return _PARAM.sub(r"\1=test", _MASKED.sub(rf"\1={token}", contact))


@dataclass(slots=True)
class _Phone:
    contact: str
    """Without parameters."""
    aor: str
    token: str
    parameters: str
    pushed_at: float

    @property
    def written(self) -> str:
        return bare(self.contact) + self.parameters


class Woken:
    """Reads these facts; `act(text, seconds)` is told what has to happen when, `expect(text)` what is expected now."""

    def __init__(self, act: Callable[[str, float], None], expect: Callable[[str], None]) -> None:
        self.rules: list[str] = []
        """`given: push`."""
        self._act = act
        self._expect = expect
        self._phones: dict[str, _Phone] = {}
        """By contact, without parameters."""
        self._woken: dict[str, tuple[_Phone, float]] = {}
        """Who has registered and has not been called yet: contact now → phone, and when."""
        self._step = 0.0, ""
        """When a step `push` began, and to whose phones."""

    def read(self, now: float, fact: Fact, aor: str) -> bool:
        """Take a fact; False for one about something else. `aor`: whose phones are called now."""
        kind = fact["kind"]
        if kind == PhonePushed.__name__:
            self._pushed(now, fact, aor)
        elif kind == PushEnded.__name__:
            self._refused(now, fact)
        elif kind == PhoneWoke.__name__:
            phone = self._phones.get(fact["was"])
            if phone is not None:
                self._woken[fact["contact"]] = phone, now
        else:
            return False
        return True

    def _pushed(self, now: float, fact: Fact, aor: str) -> None:
        contact, service = fact["contact"], fact["service"]
        phone = self._phones.get(contact)
        if phone is None:
            token = self.token()
            parameters = f";pn-provider={service};pn-param=test;pn-prid={token}"
            phone = self._phones[contact] = _Phone(contact, aor, token, parameters, now)
        push = f"{{to: {quoted(phone.aor)}, kind: {fact['why']}, token: {phone.token}}}"
        self._expect(f"sent: {{push: {push}, at: {seconds_of(now)}}}")

    def begins(self, now: float, aor: str) -> None:
        """A step `push`."""
        self._step = now, aor

    def pushed(self, now: float, fact: Fact) -> None:
        """How it has ended. The trace does not name the phones, so they get addresses of their own."""
        began, aor = self._step
        for outcome in ("sent", "failed", "dead"):
            for _ in range(fact[outcome]):
                token = self.token()
                contact = f"sip:{aor.partition('@')[0]}@10.200.0.{len(self._phones) + 1}"
                parameters = f";pn-provider=fcm;pn-param=test;pn-prid={token}"
                self._phones[contact] = _Phone(contact, aor, token, parameters, began)
                self._expect(f"sent: {{push: {{to: {quoted(aor)}, token: {token}}}, at: {seconds_of(began)}}}")
                delay = f", delay: {seconds_of(now - began)}" if now > began else ""
                if outcome != "sent" or delay:
                    self.rules.append(f"{{token: {token}, outcome: {outcome}{delay}}}")

    def _refused(self, now: float, fact: Fact) -> None:
        phone = self._phones.get(fact["contact"])
        if phone is None:
            return
        said = f", reason: {quoted(fact['reason'])}" if fact["reason"] else ""
        delay = f", delay: {seconds_of(now - phone.pushed_at)}" if now > phone.pushed_at else ""
        self.rules.append(f"{{token: {phone.token}, outcome: {fact['outcome']}{said}{delay}}}")

    def token(self) -> str:
        """Of one more phone."""
        return f"phone{len(self._phones) + 1}"

    def calls(self, contact: str) -> bool:
        """A phone is called; whether it is one that has woken up. Only now its whole contact is known."""
        short = without_parameters(contact)
        if short not in self._woken:
            return False
        phone, at = self._woken.pop(short)
        written = with_token(contact, phone.token)
        if has_push_address(contact):
            phone.parameters = written[len(short) :]
        self._registers(phone, bare(written), at)
        return True

    def end(self) -> None:
        """That was all: who has not been called has registered all the same."""
        for short, (phone, at) in self._woken.items():
            self._registers(phone, bare(short) + phone.parameters, at)
        self._woken.clear()

    def _registers(self, phone: _Phone, contact: str, at: float) -> None:
        self._act(f"register: {{aor: {quoted(phone.aor)}, contact: {quoted(contact)}}}", at)

    @property
    def asleep(self) -> Iterator[tuple[str, str]]:
        """Address of record and contact of each phone that slept when the run began."""
        return ((phone.aor, phone.written) for phone in self._phones.values())
