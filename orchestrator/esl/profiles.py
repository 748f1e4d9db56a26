"""The SIP profiles of a FreeSWITCH as its configuration says (`api xml_locate configuration configuration name
sofia.conf`), as far as they decide whether it takes a call of ours.

mod_sofia answers OPTIONS with 200 whatever its access lists say (sofia_handle_sip_i_options); they count for an INVITE
alone (sofia_handle_sip_i_invite): one of `apply-inbound-acl` has to allow the source, or else the call is refused with
403, or challenged with 407 where `auth-calls` is set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

ASK = "xml_locate configuration configuration name sofia.conf"
"""The API command whose output `profiles_of` reads."""

DEFAULT_PORT = 5060

_PROFILE = re.compile(r'<profile\s+name="([^"]*)"[^>]*>(.*?)</profile>', re.DOTALL)
_GATEWAYS = re.compile(r"<gateways>.*?</gateways>", re.DOTALL)
_PARAM = re.compile(r'<param\s+name="([^"]*)"\s+value="([^"]*)"')
_LIST = re.compile(r"[A-Za-z0-9._/-]+").fullmatch
_TRUE = frozenset(("yes", "on", "true", "t", "enabled", "active", "allow", "1"))
"""What FreeSWITCH takes for true (switch_true)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One SIP profile. `lists` are those of `apply-inbound-acl`; `challenges`: who is in none of them is asked for a
    password; `certain`: what these say is all there is to say."""

    name: str
    port: int
    lists: tuple[str, ...] = ()
    challenges: bool = False
    certain: bool = True


def profiles_of(xml: str) -> list[Profile]:
    """The profiles of a sofia.conf as FreeSWITCH writes it out; [] of anything else."""
    return [_profile(unescape(found[1]), _GATEWAYS.sub("", found[2])) for found in _PROFILE.finditer(xml)]


def _profile(name: str, xml: str) -> Profile:
    values: dict[str, list[str]] = {}
    for found in _PARAM.finditer(xml):
        values.setdefault(found[1], []).append(unescape(found[2]))
    port = values.get("sip-port", [""])[-1]
    given = [text for text in values.get("apply-inbound-acl", ()) if text]
    lists = tuple(text.partition(":")[0] for text in given)  # list[:context if allowed[:context if not]]
    blind = _is_true(values, "accept-blind-auth")
    certain = all(map(_LIST, lists)) and not blind and all(text.count(":") < 2 for text in given)
    return Profile(name, int(port) if port.isdigit() else DEFAULT_PORT, lists, _is_true(values, "auth-calls"), certain)


def _is_true(values: dict[str, list[str]], name: str) -> bool:
    text = values.get(name, [""])[-1].lower()
    return text in _TRUE or (text.isdigit() and int(text) != 0)
