"""Flow files to a `Program`: read, parse, merge, check, all or nothing.

All files given are one namespace. They are taken in order of their file names, which is the order in which flows are
tried. A set with any error is refused as a whole, with every mistake of every file in one `InputError`; warnings come
back beside the program. Only `read_sources` touches the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import Diagnostic, InputError
from orchestrator.events.event import EventSpec
from orchestrator.flow import actions as _actions  # noqa: F401  # fills the registry
from orchestrator.flow.check.across_flows import check_calls, check_reach, check_subscriptions
from orchestrator.flow.check.call_state import StateChecker
from orchestrator.flow.check.flows import FlowChecker, read_head
from orchestrator.flow.check.resources import ResourceReader
from orchestrator.flow.language.declarations import Declarations, as_entries
from orchestrator.flow.language.diagnostics import in_order
from orchestrator.flow.language.packages import known_events
from orchestrator.flow.language.program import Flow, Program, Resources, Step
from orchestrator.flow.language.registry import ACTIONS, Actions
from orchestrator.flow.language.report import Report
from orchestrator.flow.language.sections import SECTIONS
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.usage import steps_of
from orchestrator.flow.language.yaml import MAX_OCTETS, Document, Entries, Scalar, parse

SUFFIX = ".flow.yaml"

VERSION = "1"
"""The language this version reads."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its name as messages show it, and its text."""

    name: str
    text: str
    empty: str = ""
    """For a folder that holds no flow file: what to do about it. It may be the wrong one, so it is a warning."""


def load_program(paths: Sequence[Path], known: Resources | None = None) -> tuple[Program, list[Diagnostic]]:
    """The program of flow files and folders (`*.flow.yaml`, not deeper), and its warnings in order of place.

    `known` are resources of the configuration file, which flows may name as well.

    Raises:
        InputError: anything wrong in any of them, one diagnostic per mistake.
    """
    return load_sources(read_sources(paths), known)


def load_sources(
    sources: Iterable[Source],
    known: Resources | None = None,
    actions: Actions = ACTIONS,
    events: Iterable[EventSpec] | None = None,
) -> tuple[Program, list[Diagnostic]]:
    """The same for texts. `known` are resources of the configuration file, which flows may name as well.

    Without `events` those built in and those of installed packages are known.

    Raises:
        InputError: as `load_program`.
        OrchestratorError: a package that adds to the language cannot be used.
    """
    events = known_events() if events is None else events
    sources = list(sources)
    documents = [parse(source.name, source.text) for source in sources if not source.empty]
    program = _Loader(documents, known or Resources(), actions, events).load()
    found = in_order(dict.fromkeys(diagnostic for document in documents for diagnostic in document.diagnostics))
    found = [*(_empty(source) for source in sources if source.empty), *found]
    if program is None or any(diagnostic.severity == "error" for diagnostic in found):
        raise InputError(found)
    return program, found


def read_sources(paths: Sequence[Path]) -> list[Source]:
    """Read files, and folders one level deep, in order of file names.

    Raises:
        InputError: E003, a file or folder that cannot be read.
    """
    sources: list[Source] = []
    problems: list[Diagnostic] = []
    for path in paths:
        try:
            files = sorted(path.iterdir(), key=lambda file: file.name) if path.is_dir() else [path]
        except OSError as error:
            problems.append(_unreadable(path, error))
            continue
        if path.is_dir() and not any(file.name.endswith(SUFFIX) for file in files):
            sources.append(Source(str(path), "", _rename(files)))
        for file in files:
            if file != path and not file.name.endswith(SUFFIX):
                continue
            try:
                sources.append(Source(str(file), _read(file)))
            except (OSError, ValueError) as error:
                problems.append(_unreadable(file, error))
    if problems:
        raise InputError(problems)
    return sorted(sources, key=lambda source: Path(source.name).name)


def _rename(files: Iterable[Path]) -> str:
    """The help for a folder in which no name ends as it must."""
    others = [file.name for file in files if file.suffix in (".yaml", ".yml")]
    rename = f": rename {others[0]} to {others[0].partition('.')[0]}{SUFFIX}" if others else ""
    return f"flow files are named *{SUFFIX}{rename}"


def _empty(source: Source) -> Diagnostic:
    message = f"this folder holds no *{SUFFIX} file"
    return Diagnostic(source.name, 1, 1, "W308", message, "warning", help=source.empty)


def _unreadable(path: Path, error: OSError | ValueError) -> Diagnostic:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    help = "make the folder, or name the right one" if isinstance(error, FileNotFoundError) and not path.suffix else ""
    return Diagnostic(str(path), 1, 1, "E003", f"this cannot be read: {reason}", help=help)


def _read(file: Path) -> str:
    """The text of a file. Raises OSError, and ValueError when it is too large or no UTF-8."""
    with file.open("rb") as stream:
        content = stream.read(MAX_OCTETS + 1)
    if len(content) > MAX_OCTETS:
        raise ValueError(f"the file is larger than {MAX_OCTETS >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8") from None


def executable(program: Program) -> list[Diagnostic]:
    """E119 for each step whose action, or a key of it, this version can check but not run: nothing is ignored."""
    missing: dict[tuple[str, int, int, str], int] = {}
    for flow in program.flows:
        for step in steps_of((flow.do, flow.on_error or (), flow.on_end or ())):
            for message in _unbuilt(step):
                place, name = step.place, step.action.name if step.action else ""
                missing[place.file, place.line, place.column, message] = len(name)
    return [
        Diagnostic(file, line, column, "E119", message, length=length)
        for (file, line, column, message), length in sorted(missing.items())
    ]


def unbilled(program: Program) -> list[Diagnostic]:
    """W311 for each `charge`, for a configuration without a service that bills calls."""
    message = "nothing bills this call: services: has no cgrates"
    help = "add  services: {cgrates: {address: 'tcp://127.0.0.1:2014'}}, unless a package of yours bills"
    steps = (step for flow in program.flows for step in steps_of((flow.do, flow.on_error or (), flow.on_end or ())))
    places = dict.fromkeys(step.place for step in steps if step.action is not None and step.action.name == "charge")
    return [
        Diagnostic(place.file, place.line, place.column, "W311", message, "warning", help=help, length=len("charge"))
        for place in places
    ]


def _unbuilt(step: Step) -> list[str]:
    action = step.action
    if action is None:
        return []
    if action.handler is None:
        return [f"{action.name}: cannot be run by this version"]
    planned = [field.name for field in (*action.fields, *action.beside) if field.planned and field.name in step.args]
    return [f"{action.name}: {name} cannot be used by this version" for name in planned]


class _Loader:
    def __init__(
        self, documents: Sequence[Document], known: Resources, actions: Actions, events: Iterable[EventSpec]
    ) -> None:
        self.documents = documents
        self.actions = actions
        self.names = Declarations(known, tuple(events))
        self._said: list[int] = []

    def load(self) -> Program | None:
        """The program, None when some file is no flow file at all and the rest would only be confused by that."""
        roots = [(Report(document), self._root(document)) for document in self.documents]
        if any(document.broken or root is None for document, (_, root) in zip(self.documents, roots, strict=True)):
            return None
        files = [(report, root) for report, root in roots if root is not None]
        for section in SECTIONS:
            for report, root in files:
                node = root.get(section)
                if node is not None and section == "flows":
                    self._heads(report, root)
                elif node is not None:
                    ResourceReader(report, self.names).read(section, node)
        flows = self._flows()
        names = self.names
        return Program(
            tuple(flows.values()),
            names.events.specs,
            names.finished(),
            digest(self.documents),
            tuple(names.unsafe),
            {document.name: document.text for document in self.documents},
        )

    def _root(self, document: Document) -> Entries | None:
        """The map of a file that starts with the version; None with E002 reported."""
        root, report = document.root, Report(document)
        if document.broken:
            return None
        if not isinstance(root, Entries) or "flowlang" not in root:
            at = root or Scalar.nothing()
            report.error("E002", f"this is not a flow file: it does not start with  flowlang: {VERSION}", at)
            return None
        version = root.entries["flowlang"][1]
        if not isinstance(version, Scalar) or version.text != VERSION:
            help = f"write  flowlang: {VERSION}"
            report.error("E002", f"this version reads flowlang: {VERSION} only", version, help)
            return None
        for key, _ in root:
            if key.text not in SECTIONS:
                report.error("E101", f"unknown section {key.text!r}", key, meant(key.text, SECTIONS))
        return root

    def _heads(self, report: Report, root: Entries) -> None:
        node = as_entries(report, root.entries["flows"][1], "flows:")
        for key, item in node or ():
            if self.names.claim(report, "flows", key):
                head = read_head(report, key, item, self.names)
                if head is not None:
                    self.names.flows[key.text] = head

    def _flows(self) -> dict[str, Flow]:
        """Each flow by itself, then all of them together."""
        checkers, flows = self._checked()
        while self.names.relearn:
            checkers, flows = self._checked(again=True)
        check_calls(checkers)
        check_subscriptions(checkers)
        misplaced = {place for checker in checkers.values() for place in checker.steps.misplaced}
        try:
            StateChecker(flows, self.names.flows, misplaced).check()
        except RecursionError:
            head = next(iter(self.names.flows.values()))
            head.report.error("E202", "these flows are nested too deep, in themselves and in each other", head.key)
        check_reach(self.names.flows.values(), self.names.resources["groups"])
        return flows

    def _checked(self, again: bool = False) -> tuple[dict[str, FlowChecker], dict[str, Flow]]:
        """Each flow by itself. It is done again when a flow has put text from outside into a name that others, or it
        itself further up, were checked to hold ours."""
        if again:
            for document, said in zip(self.documents, self._said, strict=True):
                del document.diagnostics[said:]
        self._said = [len(document.diagnostics) for document in self.documents]
        self.names.relearn = False
        self.names.unsafe.clear()
        checkers = {name: FlowChecker(head, self.names, self.actions) for name, head in self.names.flows.items()}
        return checkers, {name: checker.check() for name, checker in checkers.items()}


def digest(documents: Iterable[Document]) -> str:
    """12 hexadecimal digits that change with any file's name or text."""
    total = hashlib.sha256()
    for document in documents:
        name, text = Path(document.name).name.encode(), document.text.encode()
        total.update(b"%d %s %d " % (len(name), name, len(text)) + text)
    return total.hexdigest()[:12]
