"""Load tests: Locust users that speak gRPC, in a process of their own because Locust patches Python.

`payloads` builds the requests beforehand, `command` starts Locust and reads what it measured,
`locustfile` and `user` run inside Locust, `summary` passes between the two processes.
"""
