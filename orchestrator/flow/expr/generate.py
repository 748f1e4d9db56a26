"""Typed tree → Python source → one function of the environment.

No text of the user gets into the source: names and texts are written with `ascii()`, numbers with `repr()`, patterns
come in as constants. The generated function sees the helpers of `runtime` and nothing else, not even Python's
builtins. For `event.digit != 2` it is

    def evaluate(env):
        try:
            return (env['event']['digit'] != '2')
        except FAULTS as fault:
            raise explain(fault, env) from None

which costs what the line costs; the `try` is free until something is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from orchestrator.errors import StepError
from orchestrator.flow.expr import runtime
from orchestrator.flow.expr.complaints import at
from orchestrator.flow.expr.functions import FUNCTIONS
from orchestrator.flow.expr.glob import glob
from orchestrator.flow.expr.nodes import (
    Attribute,
    Binary,
    Call,
    Conditional,
    Convert,
    Encode,
    Glob,
    Index,
    Join,
    ListOf,
    Literal,
    Logic,
    Macro,
    Name,
    Node,
    Number,
    Unary,
    Wildcard,
)
from orchestrator.flow.expr.scope import Path
from orchestrator.flow.expr.types import Type


class Evaluator(Protocol):
    """A compiled expression: the root names of the environment to a value. Raises StepError, nothing else."""

    def __call__(self, env: Mapping[str, Any]) -> Any: ...


FAULTS = (StepError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)
"""What a value of another shape than declared makes Python raise; `explain` turns each into a StepError."""

_HELPERS: dict[str, Any] = {
    name: getattr(runtime, name)
    for name in (
        *("limit", "concat", "replace", "split", "prefix", "drop", "join", "join_text"),
        *("add", "subtract", "multiply", "ratio", "divide", "remainder", "to_int"),
        *("number_text", "seconds_text", "time_text", "bool_text", "any_text"),
        *("as_text", "as_number", "as_bool", "as_list", "as_map", "get", "item", "member"),
        *("same", "within", "less", "plus", "Budget", "exists", "every", "keep_if", "each", "extend"),
    )
} | {"glob": glob, "len": len, "FAULTS": FAULTS, "__builtins__": {}}

_MACROS = {"exists": "exists", "all": "every", "filter": "keep_if", "map": "each"}
_TEXT_OF = {
    "number": "number_text",
    "bool": "bool_text",
    "duration": "seconds_text",
    "time": "time_text",
    "any": "any_text",
}
_CONVERSIONS = {
    **dict.fromkeys(("text", "digits", "uri", "aor", "tel", "enum"), "as_text"),
    **dict.fromkeys(("number", "duration", "time"), "as_number"),
    **dict.fromkeys(("map", "record", "contact"), "as_map"),
    "bool": "as_bool",
    "list": "as_list",
}

_FUNCTION = """\
def make({names}):
 def evaluate(env):
  try:
   {budget}
   return {code}
  except FAULTS as fault:
   raise explain(fault, env) from None
 return evaluate
"""


def generate(node: Node, source: str, reads: Iterable[Path]) -> Evaluator:
    """Compile a checked tree. `source` and `reads` serve the messages of run-time errors.

    Raises:
        ExprError: E202 when Python's own compiler finds it nested too deep; E201 for a number beyond 64 bits.
    """
    writer = _Writer()
    code = writer.write(node)
    text = _FUNCTION.format(
        names=", ".join(["explain", *writer.constants]),
        budget="spend = Budget()" if writer.spends else "pass",
        code=code,
    )
    made: dict[str, Callable[..., Evaluator]] = {}
    try:
        exec(compile(text, "<expression>", "exec"), _HELPERS, made)  # noqa: S102  (our own source, see above)
    except (SyntaxError, MemoryError, RecursionError):
        raise at(node, "E202", "this expression is nested too deep", "split it with set:") from None
    return made["make"](_Explainer(source, tuple(reads)), *writer.constants.values())


def text_code(code: str, type: Type) -> str:
    """Source that writes a value of a type as text."""
    helper = _TEXT_OF.get(type.kind)
    return f"{helper}({code})" if helper else code


class _Writer:
    """Writes one expression. Every part it writes is closed in itself: an atom, a call, or in parentheses."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {}
        self.spends = False
        self._temporaries = 0
        self._rules: dict[type[Node], Callable[[Any], str]] = {
            Literal: self._literal,
            Number: self._number,
            ListOf: self._list,
            Name: self._name,
            Attribute: self._attribute,
            Index: self._index,
            Call: self._call,
            Macro: self._macro,
            Unary: self._unary,
            Binary: self._binary,
            Logic: self._logic,
            Conditional: self._conditional,
            Convert: self._convert,
            Join: self._join,
            Encode: self._encode,
            Glob: self._glob,
            Wildcard: self._wildcard,
        }

    def write(self, node: Node) -> str:
        return self._rules[type(node)](node)

    # --- values -------------------------------------------------------------------------------------------------------

    def _literal(self, node: Literal) -> str:
        return ascii(node.value)

    def _number(self, node: Number) -> str:
        whole = "." not in node.source
        # int() of a very long text is quadratic and refused by Python; no number in range has more than 19 digits
        digits = node.source.lstrip("0").partition(".")[0]
        value: float = runtime.MAX_NUMBER + 1 if len(digits) > 19 else int(node.source) if whole else float(node.source)
        if value > runtime.MAX_NUMBER:
            raise at(node, "E201", "this number is larger than 64 bits can hold", "put it in quotes if it is text")
        return repr(value)

    def _list(self, node: ListOf) -> str:
        return f"[{', '.join(map(self.write, node.items))}]"

    def _name(self, node: Name) -> str:
        return node.local or f"env[{node.name!a}]"

    def _attribute(self, node: Attribute) -> str:
        return self._reach(node.target, node.safe, lambda target: self._field(target, node))

    def _field(self, target: str, node: Attribute) -> str:
        type, name = node.target.type, ascii(node.name)
        if type.kind == "any":
            return f"member({target}, {name})"
        declared = type.fields.get(node.name)
        return f"get({target}, {name})" if declared is None or declared.optional else f"{target}[{name}]"

    def _index(self, node: Index) -> str:
        helper = {"list": "item", "map": "get"}.get(node.target.type.kind, "member")
        key = self.write(node.key)
        return self._reach(node.target, node.safe, lambda target: f"{helper}({target}, {key})")

    def _reach(self, target: Node, safe: bool, rest: Callable[[str], str]) -> str:
        """`target.rest`, or null where a target reached with `?.` is null."""
        code = self.write(target)
        if not safe or not (target.type.optional or target.type.kind in ("any", "null")):
            return rest(code)
        name = self._temporary()
        return f"(None if ({name} := {code}) is None else {rest(name)})"

    # --- functions ----------------------------------------------------------------------------------------------------

    def _call(self, node: Call) -> str:
        value, function = node.arguments[0], FUNCTIONS[node.name]
        if function.pattern:
            rest = [self._constant(node.constant)]
        else:
            rest = [self.write(argument) for argument in node.arguments[1:]]
        rest += ["''"] * (len(function.parameters) - len(rest))
        if not function.code:
            return self._reach(value, node.safe, lambda code: text_code(code, value.type))
        return self._reach(value, node.safe, lambda code: function.code.format(code, *rest))

    def _macro(self, node: Macro) -> str:
        self.spends = True
        return f"{_MACROS[node.name]}({self.write(node.target)}, lambda {node.local}: {self.write(node.body)}, spend)"

    # --- operators ----------------------------------------------------------------------------------------------------

    def _unary(self, node: Unary) -> str:
        return f"({'not' if node.op == 'not' else '-'} {self.write(node.operand)})"

    def _binary(self, node: Binary) -> str:
        left, right = self.write(node.left), self.write(node.right)
        if node.op == "??":
            name = self._temporary()
            return f"({name} if ({name} := {left}) is not None else {right})"
        if node.op == "in":
            return self._within(node, left, right)
        if node.op in ("==", "!="):
            return self._equality(node, left, right)
        if node.helper == "less":
            pair = f"{left}, {right}" if node.op in ("<", "<=") else f"{right}, {left}"
            return f"less({pair}, {len(node.op) == 2})"
        return f"{node.helper}({left}, {right})" if node.helper else f"({left} {node.op} {right})"

    def _equality(self, node: Binary, left: str, right: str) -> str:
        negation = "not " if node.op == "!=" else ""
        if "null" in (node.left.type.kind, node.right.type.kind):
            one = right if node.left.type.kind == "null" else left
            return f"({one} is {negation}None)"
        if not node.helper:
            return f"({left} {node.op} {right})"
        if isinstance(node.left, Number):
            left, right, written = right, left, node.left.source
        else:
            written = node.right.source if isinstance(node.right, Number) else ""
        return f"({negation}same({left}, {right}, {ascii(written) if written else None}))"

    def _within(self, node: Binary, left: str, right: str) -> str:
        if node.right.type.kind == "map":
            return f"(get({right}, {left}) is not None)"
        if not node.helper:
            return f"({left} in {right})"
        items = node.right.items if isinstance(node.right, ListOf) else []
        written = [ascii(item.source) if isinstance(item, Number) else "None" for item in items]
        return f"within({left}, {right}, [{', '.join(written)}])"

    def _logic(self, node: Logic) -> str:
        return f"({f' {node.op} '.join(map(self.write, node.operands))})"

    def _conditional(self, node: Conditional) -> str:
        return f"({self.write(node.then)} if {self.write(node.test)} else {self.write(node.other)})"

    # --- what the checker and the templates put in --------------------------------------------------------------------

    def _convert(self, node: Convert) -> str:
        helper = _CONVERSIONS.get(node.type.kind)
        code = self.write(node.operand)
        if helper is None:
            return code
        if not node.type.optional:
            return f"{helper}({code})"
        name = self._temporary()
        return f"(None if ({name} := {code}) is None else {helper}({name}))"

    def _join(self, node: Join) -> str:
        parts = [text_code(self.write(part), part.type) for part in node.parts]
        return parts[0] if len(parts) == 1 else f"join_text({', '.join(parts)})"

    def _encode(self, node: Encode) -> str:
        name, code = self._constant(node.encoder), self.write(node.operand)
        if not node.operand.type.optional:
            return f"{name}({code})"
        value = self._temporary()
        return f"(None if ({value} := {code}) is None else {name}({value}))"

    def _glob(self, node: Glob) -> str:
        return f"glob({', '.join(map(self.write, node.children()))})"

    def _wildcard(self, node: Wildcard) -> str:
        return "True" if node.char == "*" else "None"

    # --- names of the generated function ------------------------------------------------------------------------------

    def _temporary(self) -> str:
        self._temporaries += 1
        return f"t{self._temporaries}"

    def _constant(self, value: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name


class _Explainer:
    """Turns what went wrong in an evaluation into the StepError a flow sees: which value was missing, in which
    expression.
    """

    __slots__ = ("_reads", "_source")

    def __init__(self, source: str, reads: tuple[Path, ...]) -> None:
        self._source = source
        self._reads = reads

    def __call__(self, fault: Exception, env: Mapping[str, Any]) -> StepError:
        place = f" (in {self._source[:200]})"
        if isinstance(fault, StepError):
            return StepError(fault.type, fault.message + place, fault.data)
        for path in self._reads:
            gone = _first_missing(path, env)
            if gone:
                return StepError("expr.missing", f"'{gone}' is missing{place}")
        return StepError("expr.value", f"a value is not of the type it was declared with{place}")


def _first_missing(path: Path, env: Mapping[str, Any]) -> str:
    """The shortest part of a path that leads nowhere, or ''."""
    value: Any = env
    for depth, name in enumerate(path, 1):
        try:
            listed = isinstance(value, list | tuple) and name.startswith("[")
            value = value[int(name[1:-1])] if listed else value[name]
        except (LookupError, TypeError, ValueError):
            return ".".join(path[:depth])
        if value is None and depth < len(path):
            return ".".join(path[:depth])
    return ""
