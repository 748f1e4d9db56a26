"""Every attribute of the catalogue has an origin, and no other has one."""

from __future__ import annotations

import pytest

from orchestrator.events.event import EventSpec
from orchestrator.events.origins import ORIGINS, origin_of
from orchestrator.events.registry import BUILTIN_EVENTS
from orchestrator.flow.language.program import Program


@pytest.mark.parametrize("spec", BUILTIN_EVENTS, ids=lambda spec: spec.name)
def test_every_attribute_has_an_origin(spec: EventSpec) -> None:
    assert list(ORIGINS[spec.name]) == list(spec.attributes)
    assert all(len(text) > 3 for text in ORIGINS[spec.name].values())


def test_nothing_has_an_origin_that_is_not_in_the_catalogue() -> None:
    assert set(ORIGINS) == {spec.name for spec in BUILTIN_EVENTS}


def test_events_of_flows_have_none() -> None:
    assert Program().events == {} and origin_of("pickup", "picker") == "" and origin_of("dtmf", "no") == ""
