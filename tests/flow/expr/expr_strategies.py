"""Expressions for property tests, as text: well-typed ones by type, and broken ones made from good ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hypothesis import strategies as st

Text = st.SearchStrategy[str]
Grammar = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""Type → (leaves, forms); `{number}` in a form stands for an expression of that type."""

CEL: Grammar = {
    "number": (
        ["0", "1", "2", "7", "1099511627776"],
        [
            *(f"({{number}} {op} {{number}})" for op in "+-*/%"),
            *("(-{number})", "({bool} ? {number} : {number})", "size({text})", "size({list})"),
        ],
    ),
    "text": (["''", "'a'", "'ab1'", "'b*@ '"], ["({text} + {text})", "({bool} ? {text} : {text})"]),
    "list": (
        ["[1]", "[0, 7, 2]", "[2, 2]"],
        [
            *("({list} + {list})", "{list}.filter(x, (x < {constant}))", "{list}.filter(x, (x != {constant}))"),
            *("{list}.map(x, (x + {constant}))", "{list}.map(x, (x * {constant}))"),
        ],
    ),
    "bool": (
        ["true", "false"],
        [
            *(f"({{number}} {op} {{number}})" for op in ("==", "!=", "<", "<=", ">", ">=")),
            *(f"({{text}} {op} {{text}})" for op in ("==", "!=", "<", ">=")),
            *("({bool} && {bool})", "({bool} || {bool})", "(!{bool})", "({bool} ? {bool} : {bool})"),
            *(
                "({number} in {list})",
                "{text}.contains({text})",
                "{text}.startsWith({text})",
                "{text}.endsWith({text})",
            ),
            *("{list}.exists(x, (x > {constant}))", "{list}.all(x, (x > {constant}))"),
            *("{text}.matches('^a')", "{text}.matches('[ab]*1$')", "{text}.matches('(a|b)b')"),
        ],
    ),
    "constant": (["0", "1", "2", "5"], []),
}
"""What CEL and FEL share, numbers being whole."""

FEL: Grammar = {
    "number": (
        ["vars.n", "event.expires", "vars.tries", "json.n", "0", "1", "2.5", "007", "9223372036854775807"],
        [
            *(f"({{number}} {op} {{number}})" for op in "+-*/%"),
            *("(-{number})", "int({text})", "int({number})", "int({duration})", "size({text})", "size({list})"),
            *("({bool} ? {number} : {number})", "({duration} / {duration})"),
        ],
    ),
    "text": (
        [
            *("vars.who", "call.id", "event.digit", "event.leg", "call.from.user", "json.name", "event.aor"),
            *("''", "'2'", "'a@b'"),
        ],
        [
            *("({text} + {text})", "{text}.lower()", "{text}.upper()", "{text}.trim()", "{text}.prefix({number})"),
            *("{text}.drop({number})", "{text}.replace({text}, {text})", "({optional} ?? {text})", "string({number})"),
            *("string({bool})", "string({duration})", "{list}.join({text})", "({bool} ? {text} : {text})"),
        ],
    ),
    "duration": (
        ["call.duration", "vars.limit", "event.lasted", "30s", "500ms", "(now - event.at)"],
        [
            "({duration} + {duration})",
            "({duration} - {duration})",
            "({duration} * {number})",
            "({duration} / {number})",
        ],
    ),
    "list": (
        ["groups.sales", "out.tried", "event.tags", "vars.who.split('a')", "json.list"],
        [
            *("[{text}, {text}]", "({list} + {list})", "{list}.filter(x, {text}.contains(x))"),
            "{list}.map(x, x + {text})",
        ],
    ),
    "optional": (
        [
            *("call.user", "event.group", "phone?.aor", "call.headers['X-Id']", "groups.sales[0]", "out.gateway"),
            *("phone?.headers.a", "phone?.digit.lower()", "call.headers[vars.who]"),
        ],
        ["({optional} ?? {optional})", "({bool} ? {optional} : {text})", "{list}[{number}]"],
    ),
    "bool": (
        ["event.mobile", "vars.low", "json.t", "true"],
        [
            *(f"({{number}} {op} {{number}})" for op in ("==", "!=", "<", ">=")),
            *(f"({{text}} {op} {{text}})" for op in ("==", "!=", "<", ">=", "<=")),
            *(f"({{duration}} {op} {{duration}})" for op in ("==", "<", ">=")),
            *("(event.digit == 2)", "(event.digit != 007)", "(event.digit in [1, 2])", "({text} in {list})"),
            *(
                "({bool} and {bool})",
                "({bool} or {bool})",
                "({bool} && {bool})",
                "(not {bool})",
                "({text} not in {list})",
            ),
            *("({optional} == null)", "({optional} != null)", "(call.user != null and call.user == {text})"),
            *("{list}.exists(x, x == {text})", "{list}.all(x, x.size() > {number})", "({bool} ? {bool} : {bool})"),
            *("{text}.like('*a?')", "{text}.like('**')", "{text}.matches('^[a-z]+$')"),
        ],
    ),
}
"""Expressions over the names of `conftest.NAMES`."""


@st.composite
def expressions(draw: st.DrawFn, grammar: Grammar, kind: str, size: int = 12) -> str:
    """An expression of a type, built from at most about `size` forms."""
    left = size

    def make(kind: str) -> str:
        nonlocal left
        leaves, forms = grammar[kind]
        left -= 1
        choice = (
            draw(st.integers(0, len(leaves) + len(forms) - 1)) if left > 0 else draw(st.integers(0, len(leaves) - 1))
        )
        if choice < len(leaves):
            return leaves[choice]
        return _filled(forms[choice - len(leaves)], grammar, make)

    return make(kind)


def _filled(form: str, grammar: Grammar, make: Callable[[str], str]) -> str:
    for kind in grammar:
        while f"{{{kind}}}" in form:
            form = form.replace(f"{{{kind}}}", make(kind), 1)
    return form


cel: Text = st.one_of([expressions(CEL, kind) for kind in ("number", "text", "list", "bool")])
conditions: Text = expressions(FEL, "bool")
well_typed: Text = st.one_of([expressions(FEL, kind) for kind in FEL])
"""Expressions that compile, unless they are constants that fail."""

_TOKENS = [
    *("call", "event", "vars", "json", "phone", "x", "now", "null", "true", "and", "or", "not", "in", "if", "secrets"),
    *(
        ".",
        "?.",
        "??",
        "?",
        ":",
        ",",
        "(",
        ")",
        "[",
        "]",
        "==",
        "!=",
        "<",
        ">=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "!",
        "&&",
        "||",
    ),
    *(
        "'a'",
        '"b"',
        "'",
        '"',
        "\\",
        "2",
        "007",
        "30s",
        "5xy",
        "${",
        "}",
        "$${",
        "$",
        "=",
        "&",
        "\n",
        " ",
        "\u00a0",
        "\ud800",
    ),
    *(
        "from",
        "digit",
        "leg",
        "headers",
        "exists",
        "map",
        "matches",
        "size",
        "lower",
        "like",
        "'callee'",
        "'(a'",
        "9" * 30,
    ),
]
token_soup: Text = st.lists(st.sampled_from(_TOKENS), max_size=14).map(" ".join)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good expression with a few pieces cut out, doubled, or replaced."""
    text = draw(well_typed)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 6)))
        middle = draw(st.sampled_from(["", text[start:end] * 2, *_TOKENS]))
        text = text[:start] + middle + text[end:]
    return text


anything: Text = st.one_of(st.text(max_size=40), token_soup, damaged(), well_typed)
