"""Secrets without a value: which flows would fail for them, and the program without those flows.

A background step that needs one is skipped and counted when it comes to it (`Task.walk`), since nobody waits for it. A
step whose error is handled (`on_error:`, `try:`) fails and is handled. Any other would end its flow, each time: such a
flow is left out when the program starts, and the next one that fits takes its calls. A flow `on: register` stays and
fails: without it, everybody could register. A flow that is left out can still be run by `call:`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.flow.language.evaluables import AsList, ListValue, MapValue, constant_of
from orchestrator.flow.language.program import Block, Branch, Catch, Flow, Program, Step, Trigger

_NEVER_STARTED = Trigger("call")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A flow that is not started, and the secrets it lacks."""

    flow: Flow
    secrets: tuple[str, ...]


def leave_out(program: Program, secrets: Collection[str]) -> tuple[Program, list[LeftOut]]:
    """The program whose flows need no secret that has no value; `secrets` are those that have one."""
    missing = set(program.resources.secrets) - set(secrets)
    if not missing:
        return program, []
    needs = _Needs(program)
    flows, out = [], []
    for flow in program.flows:
        lacks = needs.of(flow) & missing if flow.trigger.kind not in ("call", "register") else frozenset()
        if lacks:
            out.append(LeftOut(flow, tuple(sorted(lacks))))
        flows.append(replace(flow, trigger=_NEVER_STARTED) if lacks else flow)
    return replace(program, flows=tuple(flows)), out


class _Needs:
    """The secrets without which a flow fails."""

    def __init__(self, program: Program) -> None:
        self._flows = {flow.name: flow for flow in program.flows}
        self._endpoints = program.resources.endpoints

    def of(self, flow: Flow) -> frozenset[str]:
        return frozenset() if flow.on_error is not None else frozenset(self._block(flow.do))

    def _block(self, block: Block) -> Iterator[str]:
        for step in block:
            if step.on_error is not None:
                yield from self._block(step.on_error)
            elif constant_of(step.args.get("background")) is not True:
                yield from self._step(step)

    def _step(self, step: Step) -> Iterator[str]:
        name = step.action.name if step.action is not None else ""
        if name == "subscribe":  # a handler that fails ends nothing but itself
            return
        if name == "call" and step.args.get("flow") in self._flows:
            yield from self.of(self._flows[step.args["flow"]])
        if "endpoint" in step.args:
            yield from _secrets(self._endpoints.get(step.args["endpoint"], {}))
        for key, value in step.args.items():
            if not (name == "try" and key == "do" and step.args.get("catch")):
                yield from self._inside(value)

    def _inside(self, value: Any) -> Iterator[str]:
        """Steps inside a compiled value as steps, the rest as what it reads."""
        if isinstance(value, Step):
            yield from self._block((value,))
        elif isinstance(value, Branch):
            yield from self._inside(((value.wait,) if value.wait else (), value.do))
        elif isinstance(value, Catch):
            yield from self._block(value.do)
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from self._inside(item)
        elif isinstance(value, tuple | list):
            for item in value:
                yield from self._inside(item)
        else:
            yield from _secrets(value)


def _secrets(value: Any) -> Iterator[str]:
    """Names of the secrets a compiled value reads."""
    if isinstance(value, Mapping):
        value = MapValue(value)
    if isinstance(value, MapValue):
        for item in value.entries.values():
            yield from _secrets(item)
    elif isinstance(value, ListValue):
        for item in value.items:
            yield from _secrets(item)
    elif isinstance(value, AsList):
        yield from _secrets(value.value)
    else:
        for path in getattr(value, "reads", ()):
            if path[0] == "secrets" and len(path) > 1:
                yield path[1]
