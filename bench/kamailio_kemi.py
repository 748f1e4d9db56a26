"""Kamailio's side of bench/one_step.py: its app_python3 loads this file and calls these functions for each message.

The job of bench/kamailio.cfg in Python. Both empty callbacks must be there: without them every send logs an error.
"""

import KSR  # Kamailio gives it to the scripts it runs


def mod_init():
    return Routes()


class Routes:
    def child_init(self, rank):
        return 0

    def ksr_request_route(self, msg):
        if KSR.maxfwd.process_maxfwd(70) < 0:
            KSR.sl.sl_send_reply(483, "Too Many Hops")
            return 1
        method = KSR.pv.get("$rm")
        if KSR.siputils.has_totag() > 0:
            if KSR.rr.loose_route() < 0:
                if method != "ACK":
                    KSR.sl.sl_send_reply(404, "Not Found")
                elif KSR.tm.t_check_trans() > 0:
                    KSR.tm.t_relay()
                return 1
            KSR.tm.t_relay()
            return 1
        if method == "CANCEL":
            if KSR.tm.t_check_trans() > 0:
                KSR.tm.t_relay()
            return 1
        KSR.tm.t_check_trans()
        if method == "REGISTER":
            if KSR.registrar.save("location", 0) < 0:
                KSR.sl.sl_reply_error()
            return 1
        if method == "INVITE":
            KSR.rr.record_route()
        if KSR.registrar.lookup("location") < 0:
            KSR.sl.sl_send_reply(480, "Temporarily Unavailable")
            return 1
        if KSR.tm.t_relay() < 0:
            KSR.sl.sl_reply_error()
        return 1

    def ksr_reply_route(self, msg):
        return 1

    def ksr_onsend_route(self, msg):
        return 1
