"""Expressions for property tests, as text: well-typed ones by type, and broken ones made from good ones."""

from __future__ import annotations

from hypothesis import strategies as st

Text = st.SearchStrategy[str]


def _binary(left: Text, ops: list[str], right: Text) -> Text:
    return st.builds("({} {} {})".format, left, st.sampled_from(ops), right)


def _choice(test: Text, value: Text) -> Text:
    return st.builds("({} ? {} : {})".format, test, value, value)


def _grow(leaves: Text, *layers: Text) -> Text:
    """A leaf twice as often as anything built on others, so that expressions end."""
    return st.one_of(leaves, leaves, *layers)


WHOLE = st.integers(0, 2**40).map(str)
LETTERS = st.text("ab1*@ ", max_size=4).map(lambda text: f"'{text}'")
TRUTHS = st.sampled_from(["true", "false"])

cel_numbers: Text = st.deferred(
    lambda: _grow(
        WHOLE,
        _binary(cel_numbers, ["+", "-", "*", "/", "%"], cel_numbers),
        cel_numbers.map("(-{})".format),
        _choice(cel_conditions, cel_numbers),
        cel_texts.map("size({})".format),
        cel_lists.map("size({})".format),
    )
)
cel_texts: Text = st.deferred(
    lambda: _grow(LETTERS, _binary(cel_texts, ["+"], cel_texts), _choice(cel_conditions, cel_texts))
)
cel_lists: Text = st.deferred(
    lambda: _grow(
        st.lists(WHOLE, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        _binary(cel_lists, ["+"], cel_lists),
        st.builds("{}.filter(x, (x {} {}))".format, cel_lists, st.sampled_from(["<", "==", "!="]), WHOLE),
        st.builds("{}.map(x, (x {} {}))".format, cel_lists, st.sampled_from(["+", "-", "*"]), WHOLE),
    )
)
cel_conditions: Text = st.deferred(
    lambda: _grow(
        TRUTHS,
        _binary(cel_numbers, ["==", "!=", "<", "<=", ">", ">="], cel_numbers),
        _binary(cel_texts, ["==", "!=", "<", "<=", ">", ">="], cel_texts),
        _binary(cel_conditions, ["&&", "||"], cel_conditions),
        cel_conditions.map("(!{})".format),
        _choice(cel_conditions, cel_conditions),
        _binary(cel_numbers, ["in"], cel_lists),
        st.builds("{}.{}({})".format, cel_texts, st.sampled_from(["contains", "startsWith", "endsWith"]), cel_texts),
        st.builds("{}.{}(x, (x > {}))".format, cel_lists, st.sampled_from(["exists", "all"]), WHOLE),
        st.builds("{}.matches('{}')".format, cel_texts, st.sampled_from(["^a", "b+", "[ab]*1$", "(a|b){2}"])),
    )
)
"""The subset that CEL and FEL share, numbers being whole."""

PATHS = {
    "number": ["vars.n", "event.expires", "vars.tries", "json.n"],
    "text": ["vars.who", "call.id", "event.digit", "event.leg", "call.from.user", "json.name", "event.aor"],
    "bool": ["event.mobile", "vars.low", "json.t"],
    "duration": ["call.duration", "vars.limit", "event.lasted", "30s", "500ms", "(now - event.at)"],
    "optional": ["call.user", "event.group", "phone?.aor", "call.headers['X-Id']", "groups.sales[0]", "out.gateway"],
    "list": ["groups.sales", "out.tried", "event.tags", "vars.who.split('a')", "json.list"],
}

numbers: Text = st.deferred(
    lambda: _grow(
        st.sampled_from([*PATHS["number"], "0", "1", "2.5", "007", "9223372036854775807"]),
        _binary(numbers, ["+", "-", "*", "/", "%"], numbers),
        numbers.map("(-{})".format),
        st.builds("int({})".format, st.one_of(texts, numbers, durations)),
        st.builds("size({})".format, st.one_of(texts, lists)),
        _choice(conditions, numbers),
        _binary(durations, ["/"], durations),
    )
)
texts: Text = st.deferred(
    lambda: _grow(
        st.sampled_from([*PATHS["text"], "''", "'2'", "'a@b'"]),
        _binary(texts, ["+"], texts),
        st.builds("{}.{}()".format, texts, st.sampled_from(["lower", "upper", "trim"])),
        st.builds("{}.{}({})".format, texts, st.sampled_from(["prefix", "drop"]), numbers),
        st.builds("{}.replace({}, {})".format, texts, texts, texts),
        st.builds("({} ?? {})".format, st.sampled_from(PATHS["optional"]), texts),
        st.builds("string({})".format, st.one_of(numbers, conditions, durations, texts)),
        st.builds("{}.join({})".format, lists, texts),
        _choice(conditions, texts),
    )
)
durations: Text = st.deferred(
    lambda: _grow(
        st.sampled_from(PATHS["duration"]),
        _binary(durations, ["+", "-"], durations),
        _binary(durations, ["*", "/"], numbers),
    )
)
lists: Text = st.deferred(
    lambda: _grow(
        st.sampled_from(PATHS["list"]),
        st.builds("[{}, {}]".format, texts, texts),
        st.builds("{}.filter(x, {}.contains(x))".format, lists, texts),
        st.builds("{}.map(x, x + {})".format, lists, texts),
        _binary(lists, ["+"], lists),
    )
)
conditions: Text = st.deferred(
    lambda: _grow(
        st.sampled_from([*PATHS["bool"], "true"]),
        _binary(numbers, ["==", "!=", "<", ">="], numbers),
        _binary(texts, ["==", "!=", "<", ">="], texts),
        _binary(durations, ["==", "!=", "<", ">="], durations),
        _binary(st.just("event.digit"), ["==", "!="], st.sampled_from(["2", "007"])),
        _binary(conditions, ["and", "or", "&&"], conditions),
        conditions.map("(not {})".format),
        _binary(texts, ["in", "not in"], lists),
        _binary(st.sampled_from(PATHS["optional"]), ["==", "!="], st.just("null")),
        st.builds("({0} != null and {0} {1} {2})".format, st.just("call.user"), st.sampled_from(["==", ">"]), texts),
        st.builds("{}.exists(x, x == {})".format, lists, texts),
        st.builds("{}.like('*{}?')".format, texts, st.sampled_from(["", "a", "*"])),
        st.builds("{}.matches('^[a-z]+{}')".format, texts, st.sampled_from(["", "$", "\\\\d"])),
        _choice(conditions, conditions),
    )
)

well_typed: Text = st.one_of(numbers, texts, durations, lists, conditions)
"""Expressions over the names of `conftest.NAMES` that compile, unless they nest too deep or are constants that fail."""

_TOKENS = [
    *("call", "event", "vars", "json", "phone", "x", "now", "null", "true", "and", "or", "not", "in", "if", "secrets"),
    *(".", "?.", "??", "?", ":", ",", "(", ")", "[", "]", "==", "!=", "<", ">=", "+", "-", "*", "/", "%", "!", "&&", "||"),
    *("'a'", '"b"', "'", '"', "\\", "2", "007", "30s", "5xy", "${", "}", "$${", "$", "=", "&", "\n", " ", "\u00a0", "\ud800"),
    *("from", "digit", "leg", "headers", "exists", "map", "matches", "size", "lower", "like", "'callee'", "'(a'", "9" * 30),
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
