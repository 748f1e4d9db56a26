"""Octets of a real FreeSWITCH (1.11.3-dev git cc93a68) that the double needs before any recording is played."""

from __future__ import annotations

BACKGROUND_JOB = b"""\
Event-Name: BACKGROUND_JOB
Core-UUID: 4ddc4bc4-5198-47df-9dbf-e40c18735dd5
FreeSWITCH-Hostname: fs1
FreeSWITCH-Switchname: fs1
FreeSWITCH-IPv4: 192.0.2.10
FreeSWITCH-IPv6: %3A%3A1
Event-Date-Local: 2026-11-22%2022%3A14%3A16
Event-Date-GMT: Sun,%2022%20Nov%202026%2022%3A14%3A16%20GMT
Event-Date-Timestamp: 1795385656620092
Event-Calling-File: mod_event_socket.c
Event-Calling-Function: api_exec
Event-Calling-Line-Number: 1580
Event-Sequence: 887
Job-UUID: job-1
Job-Command: status
Content-Length: 0

"""
"""Block of a BACKGROUND_JOB, up to where the body begins."""

HEARTBEAT = b"""\
Event-Name: HEARTBEAT
Core-UUID: 4ddc4bc4-5198-47df-9dbf-e40c18735dd5
FreeSWITCH-Hostname: fs1
FreeSWITCH-Switchname: fs1
FreeSWITCH-IPv4: 192.0.2.10
FreeSWITCH-IPv6: %3A%3A1
Event-Date-Local: 2026-11-22%2022%3A14%3A17
Event-Date-GMT: Sun,%2022%20Nov%202026%2022%3A14%3A17%20GMT
Event-Date-Timestamp: 1795385657280093
Event-Calling-File: switch_core.c
Event-Calling-Function: send_heartbeat
Event-Calling-Line-Number: 95
Event-Sequence: 888
Event-Info: System%20Ready
Up-Time: 0%20years,%200%20days,%200%20hours,%200%20minutes,%2039%20seconds,%20559%20milliseconds,%20196%20microseconds
FreeSWITCH-Version: 1.11.3-dev%2Bgit~20260821T141014Z~cc93a683ca~64bit
Uptime-msec: 39559
Session-Count: 0
Max-Sessions: 200
Session-Per-Sec: 100
Session-Per-Sec-Last: 0
Session-Per-Sec-Max: 4
Session-Per-Sec-FiveMin: 4
Session-Since-Startup: 16
Session-Peak-Max: 5
Session-Peak-FiveMin: 5
Idle-CPU: 97.833333

"""
"""Block of a HEARTBEAT."""

STATUS = """\
UP 0 years, 0 days, 0 hours, 0 minutes, 38 seconds, 883 milliseconds, 272 microseconds
FreeSWITCH (Version 1.11.3-dev git cc93a68 2026-08-21 14:10:14Z 64bit) is ready
16 session(s) since startup
0 session(s) - peak 5, last 5min 5\x20
0 session(s) per Sec out of max 100, peak 4, last 5min 4\x20
200 session(s) max
min idle cpu 0.00/97.83
Current Stack Size/Max 240K/8192K
"""
"""Output of `api status`."""

GOODBYE = b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
"""Body of the text/disconnect-notice after `exit` and after a wrong password."""

SHUTDOWN = b"The system is being shut down.\n"
"""The same when FreeSWITCH is told to shut down."""

RUDE = b"Access Denied, go away.\n"
"""Body of the text/rude-rejection for an address outside the access list."""
