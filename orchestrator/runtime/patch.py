"""Make the standard library cooperative: for processes that serve, as their very first act.

urllib3, the TLS module and greenswitch wait in calls of the standard library. Patched, those let other greenlets run
meanwhile; unpatched, each would stop all calls. It has to happen before anything imports them, so the command line
calls `patch` before it imports the rest. Libraries must not do this to their users, so importing this package does
not.

Our own SIP sockets are taken from before the patch (`udp.py`): they never wait, and the reactor reads them itself.
"""

from __future__ import annotations

from gevent import monkey


def patch() -> None:
    """Patch the standard library, once per process."""
    if not monkey.is_module_patched("socket"):
        monkey.patch_all()
