"""Processes that speak gRPC with callers, beside the one that owns models, queues and devices.

A front end reads calls, checks who calls, and hands the requests to the owner; it sends what the owner replies. Both
sides talk over one socket in records (`records.py`), many of them at a time (`channel.py`). Large messages lie in
memory that they share (`arena.py`, whose places `free_space.py` hands out).

- In the front end: `__main__.py` runs a transport whose router forwards every call (`forwarding.py`).
- In the owner: `transport.py` is a transport whose calls (`calls.py`) come from front ends, which `processes.py`
  starts, and replaces when they end. Requests are used where they lie in the shared memory (`lending.py`).
"""
