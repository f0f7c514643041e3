"""The Locust side of the testbed: one process sends the load of one origin zone and records every request.

It runs as `python -m locust` (see `command`) under a supervisor that speaks JSON lines on stdin and stdout with it
(see `conductor`). It never imports ray or the emulation. Locust patches its interpreter with gevent, so only `command`,
`settings`, `entry` and `records` may be imported by another process: what both sides have to know.
"""
