"""What a user probably meant: our name for another system's word, or the nearest known name.

People come from OpenSIPS, FreeSWITCH, jambonz or Home Assistant and type what their hands know. Their words are
looked up first, spelling second (`orchestrator.flow.expr.spelling` measures it). A suggestion is a help line, never a
correction.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.flow.expr.spelling import closest

ALL_NAMES_LIMIT = 12
"""So many known names are listed in full when none of them is near."""

FOREIGN_ACTIONS: dict[str, str] = {
    # OpenSIPS and Kamailio script functions
    "t_relay": "relay",
    "t_newtran": "relay",
    "t_wait_for_new_branches": "relay",
    "forward": "relay",
    "t_on_failure": "relay",
    "t_on_reply": "relay",
    "t_on_branch": "relay",
    "ds_select_dst": "relay",
    "do_routing": "relay",
    "t_inject_branches": "inject",
    "append_branch": "inject",
    "t_cancel_branch": "cancel",
    "t_reply": "reply",
    "sl_send_reply": "reply",
    "send_reply": "reply",
    "sl_reply": "reply",
    "save": "register",
    "registered": "lookup",
    "www_authorize": "auth",
    "proxy_authorize": "auth",
    "www_challenge": "auth",
    "proxy_challenge": "auth",
    "pv_www_authorize": "auth",
    "notify_on_event": "subscribe",
    "wait_for_event": "wait",
    "raise_event": "raise",
    "route": "call",
    "launch": "parallel",
    "exit": "stop",
    "drop": "stop",
    "xlog": "log",
    "rest_get": "http",
    "rest_post": "http",
    "rest_put": "http",
    "http_query": "http",
    "async": "http",
    "cgrates_auth": "charge",
    "cgrates_acc": "charge",
    "create_dialog": "relay",
    "dlg_bye": "hangup",
    "freeswitch_esl": "fs.api",
    # FreeSWITCH and Asterisk dialplan
    "bridge": "relay",
    "dial": "relay",
    "playback": "play",
    "background": "play",
    "play_and_get_digits": "collect",
    "read": "collect",
    "record_session": "record",
    "mixmonitor": "record",
    "park": "media",
    "api": "fs.api",
    "bgapi": "fs.bgapi",
    "execute": "fs.execute",
    "spandsp_start_fax_detect": "detect",
    "avmd_start": "detect",
    "goto": "call",
    "gosub": "call",
    "noop": "log",
    "verbose": "log",
    "agi": "http",
    # jambonz, Twilio, SWML, Home Assistant, Serverless Workflow
    "gather": "collect",
    "say": "play",
    "redirect": "transfer",
    "refer": "transfer",
    "sip:refer": "transfer",
    "connect": "relay",
    "webhook": "http",
    "request": "http",
    "pause": "sleep",
    "delay": "sleep",
    "listen": "subscribe",
    "on_event": "subscribe",
    "wait_for_trigger": "wait",
    "emit": "raise",
    "event": "raise",
    "choose": "switch",
    "cond": "switch",
    "variables": "set",
    "assign": "set",
    "for": "foreach",
    "for_each": "foreach",
    "while": "repeat",
    "loop": "repeat",
    "fork": "parallel",
    "execute_flow": "call",
    "run": "call",
    "error": "fail",
    "end": "stop",
    "print": "log",
    "tag": "set",
}


def meant_action(word: str, known: Iterable[str]) -> str:
    """The help line for an unknown action: by another system's name for it, else by spelling, else ''."""
    names = tuple(known)
    foreign = FOREIGN_ACTIONS.get(word.lower())
    best = foreign if foreign in names else closest(word, names)
    return f"did you mean {best!r}?" if best else ""


def meant(word: str, known: Iterable[str]) -> str:
    """The help line for an unknown name: the nearest one, else all of them when they are few, else ''."""
    names = tuple(known)
    best = closest(word, names)
    if best is not None:
        return f"did you mean {best!r}?"
    return f"known: {', '.join(sorted(names))}" if 0 < len(names) <= ALL_NAMES_LIMIT else ""
