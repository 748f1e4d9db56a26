"""Phones that sleep in a story, and the push services that wake them (RFC 8599).

A test has the services `apns`, `fcm` and `webpush`, and those that its rules and its registered phones name. They take
every push. A phone that is registered at the start with a push address sleeps: it registered long ago.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.errors import MalformedMessage
from orchestrator.sip.binding import Change
from orchestrator.sip.push import APNS, FCM, WEBPUSH, Push, PushAddress, PushPolicy, PushService, address_of
from orchestrator.sip.uri import parse_uri
from orchestrator.testing.facts import PushRule
from orchestrator.testing.phone import Phone
from orchestrator.testing.world import World

SERVICES = (APNS, FCM, WEBPUSH)


def policy_for(rules: Iterable[PushRule], contacts: Iterable[str]) -> PushPolicy:
    """The push services of a test: `contacts` are those that are registered at its start."""
    named = [rule.service for rule in rules if not set("*?[") & set(rule.service)]
    addresses = (push_address(f"sip:{contact.removeprefix('sip:')}".encode()) for contact in contacts)
    named += [address.service for address in addresses if address is not None]
    return PushPolicy(tuple(PushService(name, name) for name in dict.fromkeys((*SERVICES, *named))))


def put_to_sleep(world: World, policy: PushPolicy) -> None:
    """Phones that a push can wake have registered longer ago than a phone is awake."""
    wall, location = world.engine.wall, world.location
    for binding in [*location]:
        if policy.service_of(binding.push_address) is not None:
            old = replace(binding, registered_at=wall - 2 * policy.awake - 60.0)
            location.apply(binding.aor, [Change("refreshed", old)])


def pushed_to(world: World, push: Push) -> Phone | None:
    """The phone that has the push address, the one that was made last first."""
    for phone in reversed(world.phones.values()):
        address = push_address(phone.contact.strip(b"<>"))
        if address is not None and address.is_same_phone(push.address):
            return phone
    return None


def push_parameters(phone: Phone) -> str:
    """What a phone's Contact URI says behind its address: `;pn-provider=…`."""
    _, semicolon, parameters = phone.contact.strip(b"<>").decode().partition(";")
    return semicolon + parameters


def push_address(contact: bytes) -> PushAddress | None:
    try:
        return address_of(parse_uri(contact))
    except MalformedMessage:
        return None
