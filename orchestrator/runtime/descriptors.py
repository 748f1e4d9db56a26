"""File descriptors: each connection needs one."""

from __future__ import annotations

import resource

from loguru import logger

from orchestrator.runtime.streams.connections import RESERVE

OTHERS = 200
"""Descriptors for everything that is no SIP connection: sockets, links, the store, the console."""


def note_descriptors(connections: int) -> None:
    """Take as many descriptors as the system lets us have, and say when that is too few for the configured limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and soft != resource.RLIM_INFINITY:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):  # the kernel has a bound of its own
            pass
    wanted = int(connections * RESERVE) + OTHERS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        help = "raise the limit of open files (ulimit -n, LimitNOFILE=), or lower sip: streams: connections"
        logger.bind(descriptors=soft, wanted=wanted, help=help).warning("descriptors_few")
