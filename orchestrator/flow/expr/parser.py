"""Tokens → tree, by precedence climbing.

From loose to tight: `a ? b : c`; `or`; `and`; `not`; comparisons and `in` (which do not chain); `??`; `+ -`; `* / %`;
unary `-` and `!`; then what follows a value: `.name`, `?.name`, `[key]`, `(…)`. The grammar is CEL's with `and or not
?? ?.` added.

`??` binds tighter than comparisons, as in Swift and Kotlin, so that `event.group ?? '' == 'sales'` asks what it seems
to ask. Languages disagree about `a ?? 0 + 1`, therefore arithmetic behind `??` has to stand in parentheses.
"""

from __future__ import annotations

import re
from typing import NoReturn

from orchestrator.flow.expr import nodes
from orchestrator.flow.expr.errors import ExprError
from orchestrator.flow.expr.foreign import foreign_operator
from orchestrator.flow.expr.lexer import Token, meant_duration, seconds, tokenize, unescape
from orchestrator.flow.expr.nodes import Node
from orchestrator.flow.expr.types import ANY, BOOL, DURATION, NULL, NUMBER, TEXT, Type

MAX_DEPTH = 64
"""Nesting of one expression (FLOWLANG §5): bounds the recursions here, in the checker and in Python's compiler."""

MACROS = frozenset({"exists", "all", "filter", "map"})

_OR, _AND, _NOT, _COMPARE, _DEFAULT, _ADD, _MULTIPLY = range(1, 8)
_BINARY = {
    "or": _OR,
    "||": _OR,
    "and": _AND,
    "&&": _AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), _COMPARE),
    "??": _DEFAULT,
    "+": _ADD,
    "-": _ADD,
    "*": _MULTIPLY,
    "/": _MULTIPLY,
    "%": _MULTIPLY,
}
_ALIASES = {"||": "or", "&&": "and", "!": "not"}
_NUMBER_OF_TELEPHONE = re.compile(r"\+[0-9]+")
_SPACED_DURATION = re.compile(r"[0-9.]+ +[A-Za-z]+$")
_RESERVED = frozenset({"and", "or", "not", "in"})
_CONSTANTS: dict[str, tuple[bool | None, Type]] = {"true": (True, BOOL), "false": (False, BOOL), "null": (None, NULL)}
_FOREIGN = {
    "AND": "write and",
    "OR": "write or",
    "NOT": "write not",
    "is": "write == or !=",
    "eq": "write ==",
    "ne": "write !=",
    "then": "a choice is written  a ? b : c",
    "else": "a choice is written  a ? b : c",
    "if": "a choice is written  a ? b : c",
}


def parse(source: str) -> Node:
    """The tree of an expression, types of literals set, everything else unchecked.

    Raises:
        ExprError: E201 syntax, E202 nested too deep.
    """
    return _Parser(source).whole()


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = tokenize(source)
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        if self._next.kind == "end":
            raise ExprError("E201", "the expression is empty", "write a value, for example call.from.user", 0)
        node = self._expression()
        if self._next.kind != "end":
            self._unexpected()
        return node

    # --- expressions --------------------------------------------------------------------------------------------------

    def _expression(self) -> Node:
        self._enter()
        test = self._binary(_OR)
        if self._accept("?"):
            then = self._expression()
            self._expect(":", "a choice is written  a ? b : c")
            other = self._expression()
            test = self._made(nodes.Conditional(test, then, other, start=test.start, end=other.end))
        self._depth -= 1
        return test

    def _binary(self, lowest: int) -> Node:
        left = self._unary(lowest)
        while True:
            token = self._next
            level = _BINARY.get(token.text, 0) if token.kind in ("op", "name") else 0
            negated = token.text == "not" and lowest <= _COMPARE and self._tokens[self._at + 1].text == "in"
            if negated:
                self._at += 1
                level = _COMPARE
            if level < lowest or not level:
                return left
            left = self._operation(left, level)
            if negated:
                left = self._made(nodes.Unary("not", left, start=left.start, end=left.end))

    def _operation(self, left: Node, level: int) -> Node:
        token = self._advance()
        op = _ALIASES.get(token.text, token.text)
        if level in (_OR, _AND):
            return self._logic(op, left, level)
        right = self._default_value() if level == _DEFAULT else self._binary(level + 1)
        if level == _COMPARE and _BINARY.get(self._next.text) == _COMPARE and self._next.kind in ("op", "name"):
            raise self._error("E201", "comparisons cannot be chained", "write a < b and b < c", self._next)
        return self._made(nodes.Binary(op, left, right, start=left.start, end=right.end))

    def _logic(self, op: str, left: Node, level: int) -> Node:
        operands = [left, self._binary(level + 1)]
        while self._next.kind in ("op", "name") and _BINARY.get(self._next.text) == level:
            self._at += 1
            operands.append(self._binary(level + 1))
        return self._made(nodes.Logic(op, operands, start=left.start, end=operands[-1].end))

    def _default_value(self) -> Node:
        """What stands behind `??`: a value, or another `a ?? b`."""
        self._enter()
        right = self._unary(_MULTIPLY)
        token = self._next
        if token.kind == "op" and _BINARY.get(token.text, 0) >= _ADD:
            message = f"it is not clear here whether ?? or {token.text} comes first"
            raise self._error("E201", message, f"write parentheses: (a ?? b) {token.text} c", token)
        if self._accept("??"):
            other = self._default_value()
            right = self._made(nodes.Binary("??", right, other, start=right.start, end=other.end))
        self._depth -= 1
        return right

    def _unary(self, lowest: int) -> Node:
        token = self._next
        if token.text not in ("not", "!", "-") or token.kind not in ("op", "name"):
            return self._postfix()
        self._at += 1
        self._enter()
        if token.text == "not":
            if lowest > _NOT:
                raise self._error("E201", "'not' cannot stand here", "write parentheses: (not a)", token)
            operand = self._binary(_COMPARE) if self._next.text != "not" else self._unary(_NOT)
        else:
            operand = self._unary(_MULTIPLY)
        self._depth -= 1
        op = _ALIASES.get(token.text, token.text)
        return self._made(nodes.Unary(op, operand, start=token.start, end=operand.end))

    # --- values -------------------------------------------------------------------------------------------------------

    def _postfix(self) -> Node:
        node = self._primary()
        while True:
            if self._accept("."):
                node = self._member(node, safe=False)
            elif self._accept("?."):
                node = self._index(node, safe=True) if self._accept("[") else self._member(node, safe=True)
            elif self._accept("["):
                node = self._index(node, safe=False)
            else:
                return node

    def _member(self, target: Node, *, safe: bool) -> Node:
        token = self._next
        if token.kind != "name":
            raise self._error("E201", f"expected a name after the dot, found {_shown(token)}", "", token)
        self._at += 1
        if not self._accept("("):
            node = nodes.Attribute(target, token.text, safe, token.start, start=target.start, end=token.end)
            return self._made(node)
        if token.text in MACROS:
            return self._macro(target, token)
        return self._call(token, [target], safe=safe)

    def _index(self, target: Node, *, safe: bool) -> Node:
        key = self._expression()
        close = self._expect("]")
        return self._made(nodes.Index(target, key, safe, start=target.start, end=close.end))

    def _macro(self, target: Node, name: Token) -> Node:
        variable = self._advance()
        if variable.kind != "name" or self._next.text != ",":
            help = f"write list.{name.text}(x, condition over x)"
            raise self._error("E207", f"{name.text} takes a name and an expression", help, name)
        self._at += 1
        body = self._expression()
        close = self._expect(")")
        start = target.start
        return self._made(nodes.Macro(name.text, target, variable.text, body, start=start, end=close.end))

    def _call(self, name: Token, arguments: list[Node], *, safe: bool = False) -> Node:
        method = bool(arguments)
        arguments += self._list(")")
        start = arguments[0].start if method else name.start
        end = self._tokens[self._at - 1].end
        return self._made(nodes.Call(name.text, arguments, method, safe, name.start, start=start, end=end))

    def _list(self, close: str) -> list[Node]:
        items: list[Node] = []
        while not self._accept(close):
            if items:
                self._expect(",", f"a missing {close}?")
            items.append(self._expression())
        return items

    def _primary(self) -> Node:
        token = self._next
        if token.kind == "end" or token.text in _RESERVED:
            return self._unexpected("a value")
        self._at += 1
        start, end = token.start, token.end
        if token.kind == "number":
            return nodes.Number(token.text, start=start, end=end, type=NUMBER)
        if token.kind == "duration":
            return nodes.Literal(seconds(token.text), start=start, end=end, type=DURATION)
        if token.kind == "text":
            return nodes.Literal(unescape(token.text), start=start, end=end, type=TEXT)
        if token.kind == "name":
            return self._named(token)
        if token.text == "(":
            node = self._expression()
            node.start, node.end = start, self._expect(")").end
            return node
        if token.text == "[":
            items = self._list("]")
            return self._made(nodes.ListOf(items, start=start, end=self._tokens[self._at - 1].end))
        self._at -= 1
        return self._unexpected("a value")

    def _named(self, token: Token) -> Node:
        if token.text in _CONSTANTS:
            value, type = _CONSTANTS[token.text]
            return nodes.Literal(value, start=token.start, end=token.end, type=type)
        if self._accept("("):
            return self._call(token, [])
        return nodes.Name(token.text, start=token.start, end=token.end, type=ANY)

    # --- tokens -------------------------------------------------------------------------------------------------------

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _advance(self) -> Token:
        token = self._tokens[self._at]
        if token.kind != "end":
            self._at += 1
        return token

    def _accept(self, op: str) -> bool:
        token = self._tokens[self._at]
        if token.kind == "op" and token.text == op:
            self._at += 1
            return True
        return False

    def _expect(self, op: str, help: str = "") -> Token:
        if not self._accept(op):
            self._unexpected(f"'{op}'", help)
        return self._tokens[self._at - 1]

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._too_deep(self._next.start)

    def _made(self, node: Node) -> Node:
        node.depth = 1 + max((child.depth for child in node.children()), default=0)
        if node.depth > MAX_DEPTH:
            raise self._too_deep(node.start)
        return node

    # --- errors -------------------------------------------------------------------------------------------------------

    def _unexpected(self, wanted: str = "", help: str = "") -> NoReturn:
        token = self._next
        known = self._foreign(token, wanted)
        if known is not None:
            raise self._error("E201", *known, token)
        wanted = wanted or "an operator or the end"
        help = help or _FOREIGN.get(token.text) or _FOREIGN.get(self._tokens[self._at - 1].text, "")
        raise self._error("E201", f"expected {wanted} here, found {_shown(token)}", help, token)

    def _foreign(self, token: Token, wanted: str) -> tuple[str, str] | None:
        """Message and help for what is known from elsewhere: `like '...'`, `<>`, `+49...`, `5 min`."""
        if not wanted or token.text in (">", "="):
            known = foreign_operator(self._source, token.start, token.text)
            if known is not None:
                return known
        if wanted == "a value" and (number := _NUMBER_OF_TELEPHONE.match(self._source, token.start)):
            return f"{number[0]} needs quotes", f"write '{number[0]}'"
        spaced = (
            _SPACED_DURATION.search(self._source[max(0, token.start - 20) : token.end])
            if token.kind == "name"
            else None
        )
        help = meant_duration(spaced[0]) if spaced else ""
        return (f"'{spaced[0]}' is not a duration", help) if spaced and help else None

    @staticmethod
    def _error(code: str, message: str, help: str, token: Token) -> ExprError:
        return ExprError(code, message, help, token.start, len(token.text))

    @staticmethod
    def _too_deep(offset: int) -> ExprError:
        message = f"this expression is nested more than {MAX_DEPTH} levels deep"
        return ExprError("E202", message, "split it: keep a part of it in a variable with set:", offset)


def _shown(token: Token) -> str:
    return "the end of the expression" if token.kind == "end" else f"'{token.text}'"
