"""Places in what goes to FreeSWITCH: API commands, arguments of applications, channel variables (FLOWLANG §3.1).

FreeSWITCH reads some of them as commands of their own, however they are quoted: a dial string, the arguments of
`system` or `lua`, a variable that holds an application to run. There nothing from outside may stand.

The lists were read off the source of FreeSWITCH 1.10 and 1.11; the file stands beside each group. Names of commands,
applications and variables are compared without regard to case there (switch_loadable_module.c,
switch_core_hash_init_nocase; switch_event.c, strcasecmp), and so here.
"""

from __future__ import annotations

import re

from orchestrator.flow.expr.types import Type
from orchestrator.flow.language import encoders
from orchestrator.flow.language.encoders import Encoder
from orchestrator.flow.language.places import OUR, Narrow, Refused, Rule, file_name


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROGRAMS = _names(
    # mod_commands.c, mod_dptools.c: a shell, or fork and exec
    "system bg_system bgsystem spawn bg_spawn spawn_stream "
    # mod_lua, mod_python3, mod_v8, mod_perl, mod_java, mod_managed, mod_basic, mod_erlang_event
    "lua luarun python python3 pyrun javascript jsrun jsapi v8 perl perlrun java managed managedrun managedreload "
    "basic erlang erlang_sendmsg"
)
"""Commands and applications that run a program or a script."""

_RUN_COMMANDS = _names(
    # mod_commands.c: the arguments are a command, or an application with its arguments
    "bgapi expand eval cond regex json xml_wrap sched_api sched_transfer sched_broadcast sched_hangup uuid_broadcast "
    "tone_detect uuid_preprocess "
    # mod_commands.c: they load code, or reach beyond the call
    "load unload reload fsctl shutdown global_setvar uuid_setvar_multi nat_map hupall event_channel_broadcast "
    # mod_commands.c: a host is looked up or asked
    "stun host_lookup gethost "
    # mod_commands.c: a destination (uuid_deflect, uuid_redirect), or a dial string made of it
    "uuid_deflect uuid_redirect group_call "
    # mod_esf, mod_fifo.c (fifo_member add: a dial string), mod_commands.c page, mod_smpp, mod_sms (chat)
    "page fifo_member fifo_add_outbound chat smpp_send "
    # mod_curl.c, mod_http_cache.c, mod_httapi.c: a URL
    "curl curl_sendfile http_get http_tryget http_put http_prefetch http_remove_cache httapi "
    # mod_hiredis.c, mod_mongo: a command or a query of a database
    "hiredis_raw mongo_find_n mongo_find_one mongo_mapreduce"
)
"""Commands whose arguments are commands, code, destinations, or reach beyond the call."""

_RUN_APPLICATIONS = _names(
    # mod_dptools.c: a dial string, or an extension of any dialplan
    "bridge att_xfer page pickup transfer execute_extension redirect deflect respond mutex "
    # mod_dptools.c: an application with its arguments, or several variables
    "eval expand sched_transfer sched_broadcast sched_hangup bind_meta_app bind_digit_action limit limit_hash "
    "limit_execute limit_hash_execute broadcast tone_detect fax_detect play_and_get_digits play_and_detect_speech "
    "detect_speech detect_audio read capture event multiset multiunset enable_heartbeat set_user preprocess "
    # mod_dptools.c: another call, or `all` of them
    "eavesdrop native_eavesdrop three_way userspy "
    # mod_spandsp.c: the application to run at the tone; mod_event_socket.c: a host; mod_conference: a dial string
    "spandsp_start_fax_detect socket conference_set_auto_outcall "
    # mod_dialplan_asterisk.c; mod_esf; mod_lcr, mod_enum, mod_osp, mod_easyroute: destinations
    "dial goto esf_page_group lcr enum osplookup ospnext easyroute group "
    # mod_curl.c, mod_httapi.c: a URL; mod_hiredis.c: a command of a database; mod_smpp
    "curl curl_sendfile httapi hiredis_raw smpp_send "
    # mod_dptools.c: paths, both of them
    "rename"
)

_PATH_COMMANDS = _names(
    # mod_commands.c; mod_snapshot, mod_voicemail
    "uuid_record uuid_displace uuid_fileman uuid_drop_dtmf file_exists uuid_write_png uuid_video_replace "
    "uuid_snapshot voicemail_inject vm_inject"
)
"""Commands with the name of a file behind the uuid."""

_SEPARATE = _names(
    "uuid_setvar uuid_display uuid_kill uuid_chat uuid_send_text uuid_send_dtmf uuid_recv_dtmf uuid_send_message"
)
"""Commands that take their arguments apart with switch_separate_string, once: quotes hold an argument together."""

_FILES = _names(
    # mod_dptools.c
    "playback endless_playback loop_playback record record_session record_session_mask record_session_unmask "
    "record_session_pause record_session_resume stop_record_session displace_session stop_displace_session "
    "video_write_overlay stop_video_write_overlay mkdir "
    # mod_spandsp.c; mod_fsv.c, mod_av, mod_cv, mod_snapshot
    "rxfax txfax play_fsv record_fsv play_video play_yuv capture_video video_replace cv snapshot"
)
"""Applications that take the name of a file."""

_SETS = _names("set export push unshift set_global bridge_export set_profile_var")
"""mod_dptools.c: `name=value`, the value to the end of the line."""

_RUNS_LATER = re.compile(
    r"(?:nolocal:|_nolocal_)?(?:"
    # switch_channel.c: switch_channel_execute_on and switch_channel_api_on take every variable with these beginnings
    r"execute_on_|api_on_|"
    # switch_types.h; switch_core_state_machine.c, switch_ivr_bridge.c, switch_ivr_async.c, mod_spandsp_fax.c
    r"api_(?:hangup|reporting)_hook|api_(?:after|before)_bridge|session_in_hangup_hook|exec_after_|"
    r"bridge_pre_execute|record_post_process_exec|system_on_|spawn_system_shell|spawn_instead_of_system|"
    r"disable_system_|"
    # switch_channel.c, switch_ivr_bridge.c, switch_ivr_async.c, mod_dptools.c, sofia.c: extensions and dialplans
    r"transfer_(?:after|on)_|park_after_|failure_causes|inline_destination|dialed_extension|campon|mutex_orbit|"
    r"native_backup_extension|hold_hangup_xfer_exten|force_transfer_|sip_redirect_|blind_transfer_|page_|"
    r"(?:user_|inbound_)?(?:context|dialplan)$|destination_number$|loopback_app|origination_nested_vars|"
    # switch_ivr_originate.c, switch_ivr.c, switch_core_media.c, mod_dptools.c: what is played, opened or written
    r"transfer_ringback|ringback$|instant_ringback|hold_music|temp_hold_music|group_confirm_|sound_prefix|"
    r"drop_dtmf_masking_file|sofia_record_file|sip_msrp_file|fax_(?:spool|prefix|trace_dir)|failed_(?:xml|json)_cdr|"
    r"video_pre_call_banner|core_video_blank_image|"
    # mod_sofia.c, sofia_glue.c: where the INVITE goes and with which account; lines of the SDP
    r"sip_route_uri|sip_network_destination|sip_invite_|sip_use_gateway|sip_gateway|sip_auth_|sip_contact_|"
    r"sip-force-contact|sip_append_|rtp_append_|"
    # switch_channel.c: names of variables
    r"(?:bridge_)?export_vars)",
    re.IGNORECASE,
)
"""Variables whose value FreeSWITCH runs, plays, dials or writes to."""

_COMMAND_CURE = "write the command, and only single arguments from outside"
_DIAL_CURE = "use originate: or transfer:, or write what it begins with: sofia/gateway/name/"


def command(before: str, after: str, type: Type) -> Encoder:
    """`fs.api` and `fs.bgapi`: one argument of a command that is written out."""
    verb, blank, rest = before.lstrip().partition(" ")
    verb = verb.lower()
    if not blank:
        raise Refused("the name of a FreeSWITCH command", _COMMAND_CURE)
    if verb in PROGRAMS or verb in _RUN_COMMANDS or OUR in verb:
        raise Narrow(f"an argument of {_shown(verb)}, which runs it", _COMMAND_CURE, encoders.SHELL)
    special = _SPECIAL.get(verb)
    if special is not None:
        return special(rest, after, type)
    if verb in _PATH_COMMANDS:
        return _path(verb, rest, after, type)
    return _argument(verb, rest, after)


def _argument(verb: str, rest: str, after: str) -> Encoder:
    if rest.count("'") % 2:
        return encoders.WORD
    whole_word = _starts_word(rest) and (not after or after[0] == " ")
    return encoders.QUOTED_WORD if verb in _SEPARATE and whole_word else encoders.WORD


def _starts_word(rest: str) -> bool:
    return rest == "" or rest[-1] == " "


def _behind(rest: str) -> list[str]:
    """The words that stand in front of the one that begins or goes on here."""
    words = rest.split()
    return words if _starts_word(rest) else words[:-1]


def _path(verb: str, rest: str, after: str, type: Type) -> Encoder:
    """A uuid, or a user; what follows it is the name of a file, or as harmless as one."""
    if not _behind(rest) and verb != "file_exists":
        return encoders.WORD
    return file_name(rest.rpartition(" ")[2].partition(":")[2] or rest.rpartition(" ")[2], after.split(" ")[0], type)


def _dialled(rest: str, after: str, type: Type) -> Encoder:
    """A dial string, and `&application(arguments)` behind it."""
    application = re.search(r"&([^(\s]*)(\(?)[^)]*$", rest)
    if application is not None:
        if not application[2]:
            raise Refused("the name of a FreeSWITCH application", "write the name")
        _application(application[1])
        return encoders.DIALLED
    variable_name = re.search(r"[{\[<,]([A-Za-z0-9_.:-]+)=[^,}\]>]*$", rest)
    if variable_name is not None:
        return _variable(variable_name[1], encoders.DIALLED)
    _endpoint(_VARIABLES.sub("", re.split("[,|]|:_:", rest)[-1].lstrip()), re.split("[ ,|]", after)[0])
    return encoders.DIALLED


_VARIABLES = re.compile(r"^(?:\{[^}]*\}|\[[^\]]*\]|<[^>]*>)+")


def _endpoint(before: str, after: str) -> None:
    """One destination of a dial string: `sofia/gateway/name/number`, `sofia/profile/user@host`, `user/1000`.

    Only the number may be from outside (mod_sofia.c, sofia_outgoing_channel). Raises Refused.
    """
    kind, slash, rest = before.partition("/")
    if not slash or " " in before:
        raise Refused("a whole dial string", _DIAL_CURE)
    if kind.lower() != "sofia":
        return
    profile, slash, rest = rest.partition("/")
    gateway = profile.lower() == "gateway"
    if gateway and slash:
        _, slash, rest = rest.partition("/")
    if not slash:
        raise Refused("the profile or gateway of a dial string", "write its name")
    if "fs_path" in rest.lower() or (not gateway and ("@" in rest or "@" not in after)):
        raise Refused("the host of a dial string", "write @ and the host, or name a gateway: sofia/gateway/name/")


def _transferred(rest: str, after: str, type: Type) -> Encoder:
    """`uuid_transfer uuid [-bleg|-both] extension [dialplan [context]]` (mod_commands.c, transfer_function).

    An extension of the inline dialplan is a list of applications, `app:arguments`.
    """
    words = [word for word in _behind(rest) if not word.startswith("-")]
    if not words:
        return encoders.WORD
    if len(words) > 1:
        raise Refused("a dialplan or its context", "write its name")
    if "inline" not in after.lower().split():
        return encoders.DIALLED
    step = re.split("[,^]", rest.rpartition(" ")[2])[-1]
    application, colon, _ = step.partition(":")
    if not colon:
        raise Refused("an application of an inline dialplan", "write the application and : in front of it")
    _application(application)
    return encoders.WORD


def _variable_set(rest: str, after: str, type: Type) -> Encoder:
    """`uuid_setvar uuid name value` (mod_commands.c, uuid_setvar_function)."""
    words = _behind(rest)
    if len(words) == 1:
        raise Refused("the name of a channel variable", "write the name")
    encoder = _argument("uuid_setvar", rest, after)
    return _variable(words[1], encoder) if len(words) > 1 else encoder


def _conference(rest: str, after: str, type: Type) -> Encoder:
    """`conference name command arguments`: some dial, some play or write a file (mod_conference, conference_api.c)."""
    words = _behind(rest)
    if not words:
        return _room(rest, after, type)
    if len(words) == 1:
        raise Refused("the name of a command of a conference", "write the name")
    what = words[1].lower()
    if what in ("dial", "bgdial"):
        behind = rest.split(None, 2)
        return _dialled(behind[2] if len(behind) > 2 else "", after, type)
    if what in _CONFERENCE_FILES:
        return file_name(rest.rpartition(" ")[2], after.split(" ")[0], type)
    return encoders.DIALLED


_CONFERENCE_FILES = _names(
    "play pause_play record norecord chkrecord recording enter_sound exit_sound file_seek file-vol write_png "
    "vid-write-png vid-bgimg vid-banner vid-logo-img vid-mute-img"
)


def _room(before: str, after: str, type: Type) -> Encoder:
    """A conference by its name; `bridge:name:dial string` calls somebody (mod_conference.c)."""
    if before.lower().startswith("bridge:"):
        return _dialled(before.rpartition(":")[2], after, type)
    return encoders.DIALLED


def _agent(rest: str, after: str, type: Type) -> Encoder:
    """`callcenter_config agent set contact name 'dial string'` (mod_callcenter.c)."""
    if "contact" in (word.lower() for word in _behind(rest)):
        raise Narrow("a whole dial string", _DIAL_CURE, encoders.SHELL)
    return _argument("callcenter_config", rest, after)


_SPECIAL: dict[str, Rule] = {
    "originate": _dialled,
    "uuid_dual_transfer": lambda rest, after, type: encoders.DIALLED if _behind(rest) else encoders.WORD,
    "uuid_transfer": _transferred,
    "uuid_setvar": _variable_set,
    "conference": _conference,
    "callcenter_config": _agent,
}
"""Commands whose arguments are not all alike. The rules get what stands behind the verb."""


def _application(name: str) -> None:
    """An application that is written out in front of a value. Raises Narrow for one that runs its arguments."""
    if name.lower() in PROGRAMS or name.lower() in _RUN_APPLICATIONS or OUR in name or "$" in name:
        raise Narrow(f"an argument of {_shown(name)}, which runs it", _COMMAND_CURE, encoders.SHELL)


def application_arguments(application: str) -> Rule:
    """`args` of `fs.execute`; `application` is '' where it is not written out."""
    name = application.lower()

    def rule(before: str, after: str, type: Type) -> Encoder:
        if name == "bridge":
            cure = "use relay:, transfer: or originate:"
            raise Narrow("an argument of bridge, which runs it", cure, encoders.SHELL)
        _application(name)
        if name in _SETS:
            return _assigned(before)
        if name in _FILES:
            return file_name(before.rpartition(" ")[2], after.partition(" ")[0], type)
        return _room(before, after, type) if name == "conference" else encoders.WORD

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
    if _RUNS_LATER.match(name) or name.startswith(OUR):
        shown = "a variable whose name is not written out" if OUR in name else name
        raise Narrow(f"the value of {shown}, which FreeSWITCH runs or dials", "write the value", encoders.SHELL)
    return encoder


def _shown(verb: str) -> str:
    return "a command that is not written out" if OUR in verb or "$" in verb else verb
