"""SIP over connections: TCP, and what runs on it.

`stream.py` is one connection without its socket: what is to be done with octets, an end, a time-out. `connection.py`
gives it a socket, `connections.py` keeps all of the server, `pace.py` shares the loop between them, `listener.py`
accepts new ones. `layers.py` says what may lie between octets and messages: a cipher (`tls.py`), a framing
(`sip.framing`).
"""
