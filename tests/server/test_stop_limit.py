"""A stop that hangs ends all the same: also where a library holds the interpreter, and with nowhere to say so."""

import os
import subprocess
import sys

import pytest

from testkit.waiting import SOON_S

# `PyDLL` keeps the interpreter while it calls: no other thread of Python's runs, no timer, no signal handler.
STUCK = """
import ctypes, os, sys, threading
from inferry_server.__main__ import _bound_stop
stop = threading.Event()
{prepare}
_bound_stop(stop, 0.2)
stop.set()
[limit] = [one for one in threading.enumerate() if one.name == "stop-limit"]
limit.join()  # it counts
{hang}
"""
HOLDING = f"ctypes.PyDLL(None).sleep({int(SOON_S) * 4})"
WAITING = "threading.Event().wait()"


@pytest.mark.skipif(sys.platform != "linux", reason="the library's sleep is taken from the process itself")
@pytest.mark.parametrize("hang", [HOLDING, WAITING], ids=["interpreter held", "waits for ever"])
@pytest.mark.parametrize(
    "prepare",
    ["", "os.close(2)", "sys.stderr = None", "sys.stderr.close()"],
    ids=["plain", "no descriptor", "no standard error", "standard error closed"],
)
def test_a_stop_that_hangs_in_a_library_ends_with_status_1(prepare: str, hang: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK.format(prepare=prepare, hang=hang)],
        stderr=subprocess.PIPE, timeout=SOON_S, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    if not prepare:
        assert b"Timeout" in done.stderr  # and where its threads were
        assert b"File" in done.stderr
