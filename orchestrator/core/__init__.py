"""The engine: requests, calls, registrations and FreeSWITCH servers, and what flows ask for, performed.

Imports `sip`, `esl`, `events` and `flow`; reads no socket, clock or file. Begin with `engine`, which composes the
others and takes all inputs, and `node`, what each of them is given.
"""
