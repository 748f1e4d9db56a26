"""The shape of a step: which action it has, and where each of its keys stands.

A step is written in several ways that mean the same: `reply: 404`, `reply: {code: 404}`, the word `stop`, `subscribe`
with its keys beside it or inside. Here they all become one `Shape`, by names alone; values are not looked at. A step
that cannot be told (no action, two actions) is reported and dropped, so that one slip of the hand gives one message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.flow.expr import closest
from orchestrator.flow.language.registry import Action, Actions, Field, Kind
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.sections import BLOCK_FIELDS, COMMON_FIELDS
from orchestrator.flow.language.suggest import meant_action
from orchestrator.flow.language.yaml import Entries, Items, Node, Scalar

COMMON = {field.name: field for field in COMMON_FIELDS}
BLOCK = {field.name: field for field in BLOCK_FIELDS}

EXCLUSIVE: dict[str, tuple[tuple[tuple[str, ...], bool], ...]] = {
    "relay": ((("to", "aor", "gateways"), True),),
    "inject": ((("to", "aor"), True),),
    "http": ((("json", "form", "body"), False),),
}
"""Action → groups of keys of which at most one may be given, and whether one has to be."""


class Given(NamedTuple):
    """A key as written (or the action itself, for a bare value) and its value."""

    key: Scalar
    value: Node


@dataclass(slots=True)
class Shape:
    """One step by names."""

    action: Action | None
    """None is the block form."""
    key: Scalar
    """What messages about the step point at."""
    end: int
    """Offset in the file where the value of the action ends."""
    fields: dict[str, Given] = field(default_factory=dict)
    common: dict[str, Given] = field(default_factory=dict)


class Shapes:
    """Reads the shapes of one file's steps."""

    def __init__(self, report: Report, actions: Actions) -> None:
        self.report = report
        self.actions = actions

    def read(self, node: Node) -> Shape | None:
        """The shape of a step, None with an error reported."""
        if isinstance(node, Scalar):
            return self._word(node)
        if isinstance(node, Items):
            self.report.error("E103", "a step is expected here, not a list", node, "remove one - or one pair of [ ]")
            return None
        keys = [key for key, _ in node if key.text in self.actions]
        if len(keys) > 1:
            message = f"one step has two actions: {keys[0].text!r} and {keys[1].text!r}"
            self.report.error("E113", message, keys[1], "start a new step with - for the second one")
            return None
        if keys:
            return self._action(node, keys[0])
        return self._block(node)

    def _word(self, node: Scalar) -> Shape | None:
        """`- stop`: an action that needs no keys, as a bare word."""
        action = self.actions.get(node.text)
        if action is not None:
            shape = Shape(action, node, node.end)
            return shape if self._complete(shape, action) else None
        word, _, rest = node.text.partition(" ")
        if not node.text:
            self.report.error("E108", "this step is empty", node, "write an action, for example  - stop")
        elif rest and word in self.actions:
            self.report.error("E108", "this step has no action", node, f"write  {word}: {rest}")
        else:
            self._unknown_action(node)
        return None

    def as_list(self, text: str) -> str:
        """The help for steps that are written as one text: `stop`, `relay registered`."""
        word, _, rest = text.partition(" ")
        action = self.actions.get(word.rstrip(":"))
        if action is None or (rest and action.short is None):
            return "write the steps with - in front"
        bare = not any(field.required for field in action.fields) and action.name not in EXCLUSIVE
        return f"write  [{action.name}]" if bare and not rest else f"write  [{action.name}: {rest or '...'}]"

    def _unknown_action(self, key: Scalar) -> None:
        help = meant_action(key.text, (action.name for action in self.actions))
        self.report.error("E109", f"unknown action {key.text!r}", key, help)

    # --- steps with an action ---------------------------------------------------------------------------------------

    def _action(self, node: Entries, key: Scalar) -> Shape | None:
        action = self.actions[key.text]
        value = node.get(key.text)
        assert value is not None
        shape = Shape(action, key, value.end)
        before = len(self.report.diagnostics)
        self._under(shape, action, Given(key, value))
        for name, item in node:
            if name is not key:
                self._beside(shape, action, Given(name, item))
        quiet = len(self.report.diagnostics) > before  # a misspelt key is one mistake, not two
        return shape if self._complete(shape, action, quiet) else None

    def _under(self, shape: Shape, action: Action, given: Given) -> None:
        """The value of the action's key: fields in a map, or what the short field stands for."""
        value = given.value
        whole = _takes_maps(action)
        if isinstance(value, Entries) and (whole is None or (action.short and set(value.entries) <= {action.short})):
            for key, item in value:
                self._field(shape, action, Given(key, item))
        elif isinstance(value, Scalar) and value.plain and not value.text:
            if self.report.cut_by_comment(value):
                shape.fields[action.short or ""] = given  # reported when its value is read
        elif whole is not None or action.short:
            shape.fields[whole or action.short or ""] = given
        elif action.fields:
            self.report.error("E103", f"{action.name}: takes a map here", value, _known_help(action.fields))
        else:
            self.report.error("E105", f"{action.name} takes no value", value, f"write  - {action.name}")

    def _field(self, shape: Shape, action: Action, given: Given) -> None:
        """A key inside the action's map."""
        name = given.key.text
        if action.field(name) is not None:
            shape.fields[name] = given
        elif name in COMMON or name in BLOCK:
            help = f"write it beside {action.name}:, at the same indentation"
            self.report.error("E114", f"{name}: does not belong under {action.name}:", given.key, help)
        else:
            self._unknown_key(action, given.key, (*action.fields, *action.beside))

    def _beside(self, shape: Shape, action: Action, given: Given) -> None:
        """A key next to the action."""
        name = given.key.text
        beside = any(field.name == name for field in action.beside)
        if beside and name in shape.fields:
            first = f"first defined at line {shape.fields[name].key.line}"
            self.report.error("E104", f"{name!r} is written twice", given.key, "remove one of them", notes=(first,))
        elif beside:
            shape.fields[name] = given
        elif name in COMMON:
            shape.common[name] = given
        elif name in BLOCK:
            self._block_key_beside(action, given)
        elif action.field(name) is not None:
            help = f"write it under {action.name}:  {action.name}: {{{name}: ...}}"
            self.report.error("E114", f"{name}: does not belong beside {action.name}:", given.key, help)
        else:
            self._unknown_key(action, given.key, (*action.beside, *COMMON_FIELDS))

    def _block_key_beside(self, action: Action, given: Given) -> None:
        """`then`/`else` beside an action. An empty list does nothing and is let pass."""
        if isinstance(given.value, Items) and not given.value.items:
            return
        help = f"write  - if: ...  with then: [{action.name}: ...]"
        if any(field.kind is Kind.OUTCOMES for field in action.beside):
            help = "for what is left of the outcomes write  on: {else: [...]}"
        message = f"{given.key.text}: belongs to an if: without an action, not beside {action.name}:"
        self.report.error("E113", message, given.key, help)

    def _unknown_key(self, action: Action, key: Scalar, known: tuple[Field, ...]) -> None:
        best = closest(key.text, (field.name for field in known))
        help = f"did you mean {best!r}?" if best else _known_help(known)
        self.report.error("E114", f"unknown key for {action.name}: {key.text!r}", key, help)

    def _complete(self, shape: Shape, action: Action, quiet: bool = False) -> bool:
        """Whether nothing that has to be given is missing; `quiet` when that may be the fault of a misspelt key."""
        missing = [f.name for f in (*action.fields, *action.beside) if f.required and f.name not in shape.fields]
        if missing and not quiet:
            self.report.error("E115", f"{action.name}: needs {' and '.join(missing)}", shape.key)
        for group, needed in EXCLUSIVE.get(action.name, ()):
            given = [name for name in group if name in shape.fields]
            if len(given) > 1:
                message = f"{action.name}: takes only one of {', '.join(group)}"
                self.report.error("E114", message, shape.fields[given[1]].key, f"remove {given[0]} or {given[1]}")
            elif needed and not given:
                if not quiet:
                    self.report.error("E115", f"{action.name}: needs one of {', '.join(group)}", shape.key)
                missing.append(group[0])
        return not missing

    # --- the block form ---------------------------------------------------------------------------------------------

    def _block(self, node: Entries) -> Shape | None:
        known = {*COMMON, *BLOCK}
        unknown = [key for key, _ in node if key.text not in known]
        if unknown and not any(key.text in BLOCK for key, _ in node):
            self._unknown_action(self._likeliest_action(unknown))
            return None
        for key in unknown:
            self.report.error("E114", f"unknown key for if: {key.text!r}", key, "known: else, if, then")
        if "if" not in node:
            self.report.error("E108", "this step has no action", node, "write an action, or if: with then:")
            return None
        condition = node.key("if")
        if "then" not in node and "else" not in node:
            self.report.error("E115", "if: needs then", condition, "add  then: [...]  or an action beside it")
            return None
        shape = Shape(None, condition, node.entries["if"][1].end)
        for key, value in node:
            target = shape.fields if key.text in BLOCK else shape.common
            if key.text == "as":
                self.report.error("E117", "if: has no result to keep", key)
            elif key.text in known:
                target[key.text] = Given(key, value)
        return shape

    def _likeliest_action(self, unknown: list[Scalar]) -> Scalar:
        """Of several unknown keys the one that was meant as the action: one with a near name, else the first."""
        names = tuple(action.name for action in self.actions)
        return next((key for key in unknown if meant_action(key.text, names)), unknown[0])


def _takes_maps(action: Action) -> str | None:
    """The field that a map under the action stands for, when the map is not made of field names."""
    for known in action.fields:
        if known.kind is Kind.ASSIGN or (known.name == action.short and known.kind is Kind.VALUE):
            return known.name
    return None


def _known_help(fields: tuple[Field, ...]) -> str:
    return f"known: {', '.join(sorted(field.name for field in fields))}"
