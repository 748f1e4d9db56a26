"""The test kit, a public package: flows and SIP on a manual clock, phones, a FreeSWITCH in memory, recorded traffic.

It may import everything. Begin with `scenario` (a story told to an engine), `world` (engine, wires and clock) and
`pytest_plugin` (the fixture `flow`, `*.test.yaml`). `freeswitch` is an Event Socket server on loopback, `switch` a
whole FreeSWITCH without sound.
"""
