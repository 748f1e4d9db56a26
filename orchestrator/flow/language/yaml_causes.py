"""What a YAML syntax error most likely comes from.

libyaml says what its grammar expected (`did not find expected key`), which is right and of no use to someone who
wrote a condition. Nearly all such errors in flow files have one of a dozen causes, each visible in the line: a value
that begins with a quote and goes on after it, `${…}` inside braces, a `: ` in a value, a tab. Each cause is a
function of the scene; the first that recognises itself gives the help.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.flow.expr.blanks import ORDINARY_SPACE, odd_blank


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the parser stopped: `column` counts from 0 in `line`."""

    problem: str
    context: str
    line: str
    column: int
    line_before: str

    @property
    def at(self) -> str:
        return self.line[self.column : self.column + 1]

    @property
    def before(self) -> str:
        return self.line[: self.column]


def likely_cause(problem: str, context: str, line: str, column: int, line_before: str) -> str:
    """One concrete help for a syntax error, '' when nothing fits."""
    scene = Scene(problem, context, line, column, line_before)
    return next((help for cause in CAUSES if (help := cause(scene))), "")


def _tab(scene: Scene) -> str:
    indent = re.match(r"[ \t]*", scene.line)
    if indent and "\t" in indent.group():
        return "tabs cannot indent YAML: use spaces"
    return ""


def _dollar_in_braces(scene: Scene) -> str:
    if scene.at == "{" and scene.before.endswith("$"):
        inside = "[ ... ]" if "sequence" in scene.context else "{ ... }"
        return f"inside {inside} put ${{...}} in quotes"
    return ""


_VALUE_STARTS = r"(?:^|[:\-,\[{])\s+"

_QUOTED_THEN_MORE = re.compile(_VALUE_STARTS + r"(?:'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\")\s*$")


def _quoted_then_more(scene: Scene) -> str:
    if _QUOTED_THEN_MORE.search(" " + scene.before) and scene.at not in ("", "#"):
        return "the value starts with a quote but goes on after it — put the whole value in the other kind of quotes"
    return ""


def _bracket_then_more(scene: Scene) -> str:
    if re.search(_VALUE_STARTS + r"[\[{].*[\]}]\s*$", scene.before) and scene.at not in ("", "#", ",", "]", "}"):
        return "the value starts with a bracket but goes on after it: put the whole value in quotes"
    return ""


def _open_quote(scene: Scene) -> str:
    return "this quote is never closed" if "quoted scalar" in scene.context and "end of stream" in scene.problem else ""


def _escape(scene: Scene) -> str:
    if "escape" in scene.problem:
        return "inside double quotes \\ starts an escape: use single quotes, or write \\\\"
    return ""


def _cannot_start(scene: Scene) -> str:
    if "cannot start any token" in scene.problem and scene.at:
        return f"a value cannot start with {scene.at}: put it in quotes"
    if "scanning an alias" in scene.context or "scanning an anchor" in scene.context:
        sign = "*" if "alias" in scene.context else "&"
        return f"a value that starts with {sign} needs quotes"
    if "scanning a tag" in scene.context or "parsing a tag" in scene.context:
        return "a value that starts with ! needs quotes; in a condition write not instead of !"
    return ""


def _key_beside_a_word(scene: Scene) -> str:
    """`- stop` and a key in the next line: the word has to become a key itself."""
    word = re.fullmatch(r"\s*- ([\w.]+)\s*", scene.line_before)
    if "mapping values" in scene.problem and word:
        return f"write  - {word.group(1)}:  with a colon, when keys stand beside it"
    return ""


def _indented_too_deep(scene: Scene) -> str:
    own_key = re.match(r"\s*(?:- )*[\w.*-]+\s*$", scene.before)
    if "mapping values" in scene.problem and own_key and _indent(scene.line) > _indent(scene.line_before):
        return "this line is indented deeper than the one above, which already has a value: check the indentation"
    return ""


_STEP_BEHIND_A_KEY = re.compile(r"(?P<before>.*?)(?P<key>[\w.-]+):\s+(?P<step>[A-Za-z_][\w.]*)$")
_ACTIONS = frozenset(
    {"reply", "relay", "inject", "cancel", "answer", "media", "hangup", "originate", "transfer", "play", "record"}
    | {"collect", "detect", "subscribe", "wait", "raise", "http", "auth", "register", "lookup", "set", "call"}
    | {"return", "fail", "sleep", "log"}
)
"""Actions that people write behind an outcome; the registry of all of them is not to be known here."""
_STEP_KEYS = frozenset(
    {"then", "else", "do", "default", "finally", "meanwhile"}
    | {"on_error", "on_timeout", "on_expire", "on_fail", "on_end"}
)


def _step_behind_a_key(scene: Scene) -> str:
    """`then: relay: registered`: steps are a list."""
    found = _STEP_BEHIND_A_KEY.fullmatch(scene.before.rstrip()) if scene.at == ":" else None
    if found is None or not ("mapping values" in scene.problem or "expected ','" in scene.problem):
        return ""
    if found["key"] not in _STEP_KEYS and found["step"] not in _ACTIONS:
        return ""
    rest = scene.line[scene.column + 1 :].strip()
    while rest.endswith("}") and rest.count("}") > rest.count("{"):
        rest = rest[:-1].rstrip()
    value = f" {rest}" if rest else " ..."
    return f"steps are a list: write  {found['key']}: [{found['step']}:{value}]"


def _list_behind_a_key(scene: Scene) -> str:
    """`then: - relay: registered`: a list begins in its own line."""
    found = re.search(r"(?P<key>[\w.-]+):\s+$", scene.before)
    if "sequence entries" not in scene.problem or found is None:
        return ""
    step = scene.line[scene.column :].strip().removeprefix("-").strip()
    return f"a list begins in the line below its key, or write  {found['key']}: [{step}]"


def _odd_blank(scene: Scene) -> str:
    """A no-break space in the indentation, or behind a colon or a dash."""
    found = odd_blank(scene.line) or odd_blank(scene.line_before)
    return f"there is a {found[1]}: {ORDINARY_SPACE}" if found is not None else ""


def _colon_in_value(scene: Scene) -> str:
    if "mapping values" not in scene.problem:
        return ""
    value = re.match(r"\s*(?:- )*[\w.]+:\s+(.*)$", scene.line)
    quotes = "double" if value and "'" in value.group(1) else "single"
    return f"': ' inside a value reads as a key: put the whole value in {quotes} quotes"


def _unclosed_bracket(scene: Scene) -> str:
    if "expected ',' or" not in scene.problem:
        return ""
    closing = scene.problem.rsplit(" ", 1)[-1]
    return f"a bracket opened above is not closed with {closing}, or a value in it needs quotes"


def _mixed(scene: Scene) -> str:
    if "expected '-'" in scene.problem:
        return "a list and keys are mixed at this indentation: check the indentation of this line"
    if "expected key" in scene.problem or "block end" in scene.problem:
        return "check the indentation of this line and the end of the line above"
    return ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


CAUSES: tuple[Callable[[Scene], str], ...] = (
    _tab,
    _step_behind_a_key,
    _list_behind_a_key,
    _odd_blank,
    _dollar_in_braces,
    _quoted_then_more,
    _bracket_then_more,
    _open_quote,
    _escape,
    _cannot_start,
    _key_beside_a_word,
    _indented_too_deep,
    _colon_in_value,
    _unclosed_bracket,
    _mixed,
)
