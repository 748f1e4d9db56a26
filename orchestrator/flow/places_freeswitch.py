"""Places in what goes to FreeSWITCH: API commands, arguments of applications, channel variables (FLOWLANG §3.1).

FreeSWITCH reads some of them as commands of their own, however they are quoted: a dial string, the arguments of
`system` or `lua`, a variable that holds an application to run. There nothing from outside may stand.
"""

from __future__ import annotations

import re

from orchestrator.flow import encoders
from orchestrator.flow.encoders import Encoder
from orchestrator.flow.expr.types import Type
from orchestrator.flow.places import OUR, Narrow, Refused, Rule, file_name

PROGRAMS = frozenset(
    """
    system bg_system bgsystem spawn spawn_stream lua luarun python python3 pyrun javascript jsrun v8 jsapi
    perl perlrun java managed basic
    """.split()  # noqa: SIM905
)
"""Commands and applications that run a program or a script."""

_RUN_COMMANDS = frozenset(
    """
    bgapi expand eval cond regex sched_api unsched_api sched_transfer sched_broadcast sched_hangup
    uuid_broadcast api_on_answer xml_wrap stun load unload reload fsctl global_setvar multiset
    uuid_setvar_multi group_call show_file http_put curl curl_sendfile
    """.split()  # noqa: SIM905
)
"""Commands whose arguments are commands, code, or reach beyond the call."""

_RUN_APPLICATIONS = frozenset(
    """
    bridge originate execute_extension transfer eval expand socket sched_transfer sched_broadcast sched_hangup
    bind_meta_app bind_digit_action att_xfer intercept enable_heartbeat api_hangup_hook event sendevent
    deflect redirect curl multiset multiunset loop_playback
    """.split()  # noqa: SIM905
)

_DIALS = frozenset(
    """
    originate create_uuid_and_originate uuid_dual_transfer uuid_bridge_to
    """.split()  # noqa: SIM905
)

_SEPARATE = frozenset(
    """
    uuid_setvar uuid_display uuid_kill uuid_chat uuid_send_dtmf uuid_recv_dtmf uuid_send_message uuid_transfer
    uuid_record uuid_fileman uuid_displace conference
    """.split()  # noqa: SIM905
)
"""Commands that take their arguments apart with switch_separate_string, once: quotes hold an argument together."""

_FILES = frozenset(
    """
    playback record record_session rxfax txfax stop_record_session displace_session
    """.split()  # noqa: SIM905
)

_SETS = frozenset(
    """
    set export set_global bridge_export set_profile_var set_user
    """.split()  # noqa: SIM905
)

_RUNS_LATER = re.compile(
    r"(?:nolocal:|_nolocal_)?(?:execute_on_|api_on_|exec_after_|bridge_pre_execute|api_hangup_hook|api_reporting_hook|"
    r"session_in_hangup_hook|transfer_after_bridge|park_after|transfer_on_fail|transfer_ringback|ringback$|"
    r"sip_route_uri|sip_network_destination|sip_invite_(?:domain|route_uri|req_uri|to_uri|contact|params)|"
    r"fail_on_single_reject|group_confirm_(?:file|read_timeout)|dialed_extension$|inline_)"
)
"""Variables whose value FreeSWITCH runs, plays or dials."""

_COMMAND_CURE = "write the command, and only single arguments from outside"


def command(before: str, after: str, type: Type) -> Encoder:
    """`fs.api` and `fs.bgapi`: one argument of a command that is written out."""
    verb, blank, rest = before.lstrip().partition(" ")
    if not blank:
        raise Refused("the name of a FreeSWITCH command", _COMMAND_CURE)
    if verb in PROGRAMS or verb in _RUN_COMMANDS or OUR in verb:
        raise Narrow(f"an argument of {_shown(verb)}, which runs it", _COMMAND_CURE, encoders.SHELL)
    if verb in _DIALS:
        return _dialled(rest)
    starts_word = rest == "" or rest[-1] == " "
    if verb == "uuid_transfer" and starts_word and rest.strip() and "inline" in after.split():
        raise Refused("an application of an inline dialplan", "write the application and : in front of it")
    if rest.count("'") % 2:
        return encoders.WORD
    whole_word = starts_word and (not after or after[0] == " ")
    return encoders.QUOTED_WORD if verb in _SEPARATE and whole_word else encoders.WORD


def _dialled(rest: str) -> Encoder:
    """A dial string, and `&application(arguments)` behind it."""
    application = re.search(r"&([^(\s]*)(\(?)[^)]*$", rest)
    if application is not None:
        if not application[2]:
            raise Refused("the name of a FreeSWITCH application", "write the name")
        if application[1] in PROGRAMS | _RUN_APPLICATIONS:
            raise Narrow(f"an argument of {_shown(application[1])}, which runs it", _COMMAND_CURE, encoders.SHELL)
    elif not rest.strip() or rest[-1] in " ,|":
        cure = "use originate: or transfer:, or write what it begins with: sofia/gateway/name/"
        raise Refused("a whole dial string", cure)
    return encoders.DIALLED


def application_arguments(application: str) -> Rule:
    """`args` of `fs.execute`; `application` is '' where it is not written out."""

    def rule(before: str, after: str, type: Type) -> Encoder:
        if application in PROGRAMS or application in _RUN_APPLICATIONS:
            cure = "use relay:, transfer: or originate:" if application == "bridge" else _COMMAND_CURE
            raise Narrow(f"an argument of {application}, which runs it", cure, encoders.SHELL)
        if application in _SETS:
            return _assigned(before)
        if application in _FILES:
            return file_name(before.rpartition(" ")[2], after.partition(" ")[0], type)
        return encoders.WORD

    return rule


def _assigned(before: str) -> Encoder:
    name, equals, _ = before.partition("=")
    if not equals:
        raise Refused("the name of a channel variable", "write the name and = in front of it")
    return _variable(name.strip(), encoders.VARIABLE)


def variable(name: str) -> Rule:
    """A value under `vars:` of `originate`."""
    return lambda before, after, type: _variable(name, encoders.WORDS)


def _variable(name: str, encoder: Encoder) -> Encoder:
    if _RUNS_LATER.match(name):
        raise Narrow(f"the value of {name}, which FreeSWITCH runs or dials", "write the value", encoders.SHELL)
    return encoder


def _shown(verb: str) -> str:
    return "a command that is not written out" if OUR in verb else verb
