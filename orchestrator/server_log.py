"""What a running server writes into its log about its files, flows and bugs; docs/log.md lists the events."""

from __future__ import annotations

from loguru import logger

from orchestrator.core.engine import Engine
from orchestrator.core.faults import Fault
from orchestrator.errors import InputError, OrchestratorError, StepError
from orchestrator.flow.run.effects import Log
from orchestrator.flow.run.run import Run
from orchestrator.guards import guards_off
from orchestrator.runtime import log
from orchestrator.site import LoadedSite


def log_of_files(site: LoadedSite) -> None:
    """Log what is odd or missing in the files of the site."""
    for warning in site.warnings:
        logger.bind(place=str(warning), help=warning.help).warning("file_warning")
    off = guards_off(site.settings, site.program)
    if off:
        logger.bind(guards=", ".join(off), help="see docs/security.md").warning("guards_off")
    for problem in site.resolved.problems:
        logger.bind(problem=problem).warning("configuration_incomplete")
    for flow, secrets in ((left.flow, ", ".join(left.secrets)) for left in site.left_out):
        logger.bind(flow=flow.name, place=str(flow.place), unset=secrets).warning("flow_left_out")


def log_of_refusal(error: OrchestratorError) -> tuple[str, ...]:
    """Log why a reload was refused, a line for each mistake; returns the mistakes with their places."""
    diagnostics = error.diagnostics if isinstance(error, InputError) else ()
    told = [(str(mistake), mistake.help) for mistake in diagnostics] or [(str(error), "")]
    for mistake, help in told:
        logger.bind(mistake=mistake, help=help).error("reload_refused")
    return tuple(mistake for mistake, _ in told)


def log_of_engine(engine: Engine) -> None:
    """Have an engine log steps, failures and bugs."""
    engine.host.on_log = log_of_flow
    engine.flows.on_fault = log_of_fault
    engine.flows.on_bound = log_of_bound
    engine.flows.on_failure = lambda run, what, error, code: tell_failure(engine, run, what, error, code)
    engine.faults.told = log_of_turn


def tell_failure(engine: Engine, run: Run, what: str, error: StepError, code: int) -> None:
    """A run, or a handler of it, ended in an error."""
    place = f"{error.file}:{error.line}" if error.line else str(run.flow.place)
    call = run.call["sip_call_id"] if run.call is not None else ""
    facts = {"flow": run.flow.name, "run": run.name, "place": place, "error": error.type, "message": error.message}
    engine.tell("run_failed", **facts, part="" if what == "flow" else what, call=call, reply=code or "none")


def log_of_flow(run: Run, effect: Log) -> None:
    """A `log:` step. The text is the flow's; what a caller put into it is escaped by the renderer."""
    facts = {**effect.data, "flow": run.flow.name, "run": run.name, "call": run.call_id}
    logger.bind(**facts).log(effect.level.upper(), effect.text)


def log_of_location(trouble: str) -> None:
    """Writes to the location store begin to fail, or succeed again: once for an outage."""
    if trouble:
        logger.bind(reason=trouble).error("location_unwritable")
    else:
        logger.info("location_writable")


def log_of_certificates(trouble: str) -> None:
    """Certificates have changed and are in use for new connections, or cannot be used."""
    if trouble:
        logger.bind(reason=trouble).error("certificates_refused")
    else:
        logger.info("certificates_loaded")


def log_of_bound(flow: str, what: str) -> None:
    """Runs of a flow have met a bound of the configuration: once in a while is enough, it may go on for hours."""
    logger.bind(source=flow, flow=flow, reason=what).error("flow_bound_reached")


def log_of_fault(run: Run, bug: Exception) -> None:
    """A bug of an action or of the host, once with its traceback; the call it was for has failed by itself."""
    facts = {"flow": run.flow.name, "run": run.name, "call": run.call_id, "notes": getattr(bug, "__notes__", [])}
    logger.bind(place=log.place_of(bug), **facts).opt(exception=bug).error("step_fault")


def log_of_turn(fault: Fault) -> None:
    """A bug of ours that an input has struck; what it was for has been ended."""
    facts = {"input": fault.where, "from": fault.source, "sip_call_id": fault.call_id}
    bound = {name: value for name, value in facts.items() if value}
    place = log.place_of(fault.error)
    logger.bind(place=place, **bound).opt(exception=fault.error).error("input_fault")
