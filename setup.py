"""Compiles the server's hot path with mypyc, if a wheel is built and COMPILE_INFERRY is 1.

Without that variable, or where mypyc or a C compiler is missing, all of it stays Python, and nothing fails: what is
compiled is only faster. An editable installation is never compiled, because what is edited would not be what runs.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.dist import Distribution

ROOT = Path("server") / "inferry_server"
# What a warm request passes, and what decides about it. Not in the list: modules with classes from which interpreted
# ones inherit, unless they say so (rpc/compiling.py), and those whose work is done once a batch or less.
HOT_PATH = (
    "batching/batches", "batching/coalesced", "batching/deadlines", "batching/fair_share", "batching/lane_queue",
    "batching/latency", "batching/ownership", "batching/policy", "batching/relief", "batching/request",
    "batching/scheduler", "batching/shared_room", "batching/shedding", "executing/core_turns", "executing/execution",
    "executing/inline", "executing/observing", "executing/request_queue", "front_ends/calls", "front_ends/channel",
    "front_ends/forwarding", "front_ends/records", "front_ends/transport", "models/registry", "rpc/router",
    "services/coalescing", "services/inference", "telemetry/series", "telemetry/statistics",
    "transport/completion_queue", "transport/core_layer", "transport/intake", "transport/queue_calls", "wire/cutting",
    "wire/encode", "wire/reading",
)  # fmt: skip


def hot_path() -> Sequence[Extension]:
    """The modules as extensions; none if they are not to be compiled, or cannot be."""
    is_asked = os.environ.get("COMPILE_INFERRY") == "1" and "bdist_wheel" in sys.argv
    if not is_asked or not ROOT.is_dir():  # images have wheels without the server
        return ()
    try:
        from mypyc.build import mypycify
    except ImportError as error:
        return stays_python(f"mypyc is missing ({error})")
    if not can_compile():
        return stays_python("a C file that includes Python.h could not be compiled")
    modules = [str(ROOT / f"{module}.py") for module in HOT_PATH]
    # A file of C each, which two cores compile faster than a single one.
    extensions: Sequence[Extension] = mypycify(
        modules, group_name="inferry_server", target_dir="build/mypyc", multi_file=True, debug_level="0"
    )
    for one in extensions:  # what another compiler warns of, in code that nobody wrote, is no reason to fail
        one.extra_compile_args = [flag for flag in one.extra_compile_args if flag != "-Werror"]
    return extensions


def can_compile() -> bool:
    """Whether there is a C compiler that works, and Python's headers."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("#include <Python.h>\nPyObject *PyInit_probe(void) { return NULL; }\n")
        command = build_ext(Distribution({"ext_modules": [Extension("probe", [str(source)])]}))
        command.build_lib = command.build_temp = folder
        try:
            command.ensure_finalized()
            command.run()
        except Exception as error:  # noqa: BLE001 - a missing compiler is told of in many ways
            print(f"inferry: {error}", file=sys.stderr)
            return False
    return True


def stays_python(why: str) -> Sequence[Extension]:
    """Say why nothing is compiled."""
    print(f"inferry: the hot path stays Python: {why}", file=sys.stderr)
    return ()


setup(ext_modules=list(hot_path()))
