"""The second leg of a call, behind FreeSWITCH, given to another call: what an attended transfer joins."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.calls.call import Call
from orchestrator.core.calls.dialogs import BackDialog
from orchestrator.sip.response_context import ResponseContext


@dataclass(frozen=True, slots=True)
class Back:
    """One on its way."""

    context: ResponseContext
    dialog: BackDialog


def release_back(call: Call) -> Back | None:
    """The leg leaves its call: its end is not the end of the call any more. None where there is none."""
    context, dialog = call.back, call.dialogs.back_dialog()
    call.drop_back()
    return None if context is None or dialog is None else Back(context, dialog)


def take_back(call: Call, back: Back) -> None:
    """The leg of another call is this one's from now on."""
    call.back = back.context
    call.back.listener = call
    call.dialogs.take_back(back.dialog)
    call.exchange.calls.add_call_id(back.dialog.call_id, call)
