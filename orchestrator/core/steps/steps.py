"""What flows can ask for, put together: who performs which effect."""

from __future__ import annotations

from orchestrator.core.calls.call import Call, Exchange
from orchestrator.core.calls.dialplan_call import SocketCall
from orchestrator.core.calls.replaced import ReplacedDialogs
from orchestrator.core.gateways import Gateways
from orchestrator.core.node import Node
from orchestrator.core.push.waking import Wakers
from orchestrator.core.registrations import Registrations
from orchestrator.core.steps import subjects
from orchestrator.core.steps.auth import Authenticator
from orchestrator.core.steps.destinations import Destinations
from orchestrator.core.steps.holding import Holding
from orchestrator.core.steps.job_steps import JobSteps
from orchestrator.core.steps.media import Applications
from orchestrator.core.steps.outbound import OutboundCalls
from orchestrator.core.steps.performers import Performers
from orchestrator.core.steps.pushing import Pushing
from orchestrator.core.steps.registering import Registering
from orchestrator.core.steps.relaying import Relaying
from orchestrator.core.steps.replies import Replies
from orchestrator.core.switches.detectors import Detectors
from orchestrator.flow.run.run import Run
from orchestrator.sip.admission import Admission


class Steps:
    """The steps of one engine's flows that act on something outside of them."""

    def __init__(
        self,
        node: Node,
        performers: Performers,
        exchange: Exchange,
        registrations: Registrations,
        gateways: Gateways,
        admission: Admission,
        wakers: Wakers,
    ) -> None:
        flows, servers = exchange.flows, exchange.servers
        self.detectors = Detectors(node)
        self.applications = Applications(node, flows, self.detectors)
        destinations = Destinations(node, registrations, gateways, ReplacedDialogs(node.network, exchange.calls))
        self.authenticator = Authenticator(node, flows, admission)
        relaying = Relaying(flows, destinations, gateways, servers, self.authenticator.consume, wakers)
        self.holding = Holding(exchange, self.applications)
        self.outbound_calls = OutboundCalls(node, exchange, destinations, gateways)
        jobs = JobSteps(node, flows, servers)
        performers.as_job = jobs.as_job
        for part in (
            relaying,
            self.holding,
            self.applications,
            self.outbound_calls,
            Replies(),
            Registering(node, flows, registrations),
            Pushing(node.network, flows, registrations, wakers.pusher),
            jobs,
            self.authenticator,
        ):
            performers.add(part.performs)

    def look(self, call: Call | SocketCall | None) -> None:
        """A channel of this call has changed: see whether its steps waited for that."""
        if call is not None:
            self.applications.look(call)
        if isinstance(call, Call) and call.hold is not None:
            call.hold.look()

    def forget(self, run: Run) -> None:
        """The run is done."""
        self.authenticator.forget(run.id)
        self.detectors.forget(run)
        subjects.forget(run)
