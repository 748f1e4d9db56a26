"""One site as its files say it at one moment: configuration, flows, users and secrets, read and checked together.

`run` reads a site at the start and again at each SIGHUP; `check` reads it and says what it found. All or nothing: a
mistake in any of the files is an `InputError` with every mistake that was found, and the site before stays in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import Diagnostic, InputError, OrchestratorError
from orchestrator.event_choice import sink_mistakes
from orchestrator.events.event import EventSpec
from orchestrator.flow.language.diagnostics import in_order
from orchestrator.flow.language.program import Place, Program, Resources
from orchestrator.flow.language.suggest import meant
from orchestrator.flow.language.unset import LeftOut, leave_out
from orchestrator.flow.loader import executable, load_sources, read_sources, unbilled
from orchestrator.packages.service import find_service
from orchestrator.resources import Resolved, at_site, known_resources, resolve, user_files
from orchestrator.settings import Settings
from orchestrator.settings.users import load_users

APPLIED_AGAIN = frozenset({"flows", "freeswitch", "gateways", "users"})
"""Sections of the configuration that a reload applies; the others need a restart."""


@dataclass(frozen=True, slots=True)
class LoadedSite:
    """What a server needs to run. `program` has the gateways of this site and starts no flow of `left_out`."""

    settings: Settings
    program: Program
    resolved: Resolved
    warnings: Sequence[Diagnostic] = ()
    left_out: Sequence[LeftOut] = ()


def read_site(settings: Settings, environ: Mapping[str, str]) -> LoadedSite:
    """Read flows, users and secrets. Raises InputError."""
    found, program = check_site(settings, environ)
    missing = executable(program) if program is not None else []
    if program is None or missing or any(diagnostic.severity == "error" for diagnostic in found):
        raise InputError([d for d in found if d.severity == "error"] + missing)
    resolved = resolve(settings, program.resources, environ)
    program, left_out = leave_out(at_site(program, resolved), resolved.secrets)
    return LoadedSite(settings, program, resolved, found, left_out)


def check_site(
    settings: Settings, environ: Mapping[str, str], paths: Sequence[Path] = ()
) -> tuple[list[Diagnostic], Program | None]:
    """What is wrong or odd in flows and user tables, what is odd in the configuration, and the program if it is right.

    With `paths` these flow files are checked instead of the site's; a file of users they name may then be elsewhere.
    """
    known = known_resources(settings)
    program, resources = None, Resources(users=known.users)
    try:
        program, found = load_sources(read_sources(paths or settings.flows), known)
        resources = program.resources
    except InputError as error:
        found = list(error.diagnostics)
    for file in user_files(settings, resources):
        if paths and not file.exists():
            continue
        try:
            load_users(file, environ)
        except InputError as error:
            found += error.diagnostics
    found += settings.warnings
    if program is not None and not paths:
        found += [] if "cgrates" in settings.services else unbilled(program)
        found += sink_mistakes(settings.sinks, program.events)
        found += service_mistakes(settings, program.events)
    return in_order(found), program


def service_mistakes(settings: Settings, events: Mapping[str, EventSpec]) -> Iterator[Diagnostic]:
    """What services say of their settings beside these events."""
    places = settings.service_places
    for name, chosen in settings.services.items():
        service = find_service(name)
        for mistake in () if service is None else service.check(chosen, events):
            path = (name, *mistake.path)
            while path and path not in places:  # a list of one may be written as its item
                path = path[:-1]
            place = places.get(path, Place("", 1, 1))
            help = meant(mistake.written, mistake.known) if mistake.written else ""
            yield Diagnostic(place.file, place.line, place.column, "E112", mistake.message, help=help)


def check_push(settings: Settings) -> list[Diagnostic]:
    """What the push services say of their keys, certificates and accounts. Reads these files; asks nobody."""
    found = []
    for name, chosen in settings.push.services.items():
        try:
            complaints = chosen.kind.open(chosen.settings).check()
        except OrchestratorError as error:
            complaints = [str(error)]
        except Exception as fault:  # of a package
            complaints = [f"its check fails: {type(fault).__name__}: {fault}"]
        for text in complaints:
            place, length = _place_of(text, name, chosen.settings, settings.push_places)
            message = f"push service {name!r}: {text}"
            found.append(Diagnostic(place.file, place.line, place.column, "E120", message, length=length))
    return found


_ACCOUNTS = ("account", "key", "certificate")
"""Keys that hold what a push service knows us by."""


def _place_of(complaint: str, name: str, account: Any, places: Mapping[str, Place]) -> tuple[Place, int]:
    """The value that a complaint of a push service is about, and its length: the one that it names, else the only one
    that can be meant, else the service."""
    written = {key: getattr(account, key, None) for key in _ACCOUNTS if f"{name}.{key}" in places}
    named = [key for key, value in written.items() if isinstance(value, str | Path) and str(value) in complaint]
    for keys in (named, list(written)):
        if len(keys) == 1:
            value = written[keys[0]]
            return places[f"{name}.{keys[0]}"], len(str(value)) if isinstance(value, str | Path) else 1
    return places.get(name, Place("", 1, 1)), len(name)


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """Sections that differ and are not applied by a reload."""
    names = (name for name in Settings.model_fields if name not in APPLIED_AGAIN)
    return [name for name in names if getattr(old, name) != getattr(new, name)]


def try_to_read(reread: Callable[[], LoadedSite]) -> LoadedSite | OrchestratorError:
    """For a thread of gevent's pool, which reports what is raised in it as a fault of its own."""
    try:
        return reread()
    except OrchestratorError as error:
        return error
