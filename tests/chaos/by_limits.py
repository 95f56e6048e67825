"""Too few descriptors, and too little memory."""

import contextlib
import resource
import shutil
import time
from pathlib import Path

import grpc
import numpy as np

from chaos import frames
from chaos.models import MODEL
from chaos.scene import POLL, Scene, Setup
from chaos.traffic import INFER, outcome_of
from testkit.rpc import infer_request

_DESCRIPTORS = 160
_HELD_S = 5.0
_ROOM = 256 << 20
_LARGE = 48 << 20


def missing() -> str:
    """Why no limits can be set."""
    return "" if shutil.which("prlimit") else "prlimit of util-linux is not installed"


def few_descriptors(folder: Path) -> Setup:
    """A server with hardly more descriptors than it needs."""
    return Setup(folder / "models", POLL, {"launcher": ("prlimit", f"--nofile={_DESCRIPTORS}:{_DESCRIPTORS}")})


def use_up_descriptors(scene: Scene) -> str:
    """More connections, over both ports, than there are descriptors."""
    held = []
    for number in range(2 * _DESCRIPTORS):
        with contextlib.suppress(OSError):
            held.append(frames.connect((scene.way.grpc_port, scene.way.http_port)[number % 2]))
    time.sleep(_HELD_S)
    for connection in held:
        connection.close()
    scene.over()
    return f"{2 * _DESCRIPTORS} connections to a server with {_DESCRIPTORS} descriptors, for {_HELD_S:g} s"


def use_up_memory(scene: Scene) -> str:
    """More requests of 48 MiB than fit into what the process may still take; it is started anew if it ends."""
    pid = scene.server.pid
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + _ROOM, resource.RLIM_INFINITY))
    message = infer_request(MODEL, images=np.zeros((1, _LARGE, 1, 1), np.uint8)).SerializeToString()
    calls = []
    with contextlib.ExitStack() as stack:
        for _ in range(scene.times(16)):
            channel = stack.enter_context(scene.way.channel())
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            scene.attack.send()
            calls.append(infer.future(message, timeout=30))
        for call in calls:
            error = call.exception()
            if isinstance(error, grpc.RpcError):
                scene.attack.fail(outcome_of(call))
            else:
                scene.attack.end(right=False)
    ended = scene.server.has_ended()
    scene.over()
    if ended:
        scene.server.start()
    else:
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    outcomes = ", ".join(f"{n} {outcome}" for outcome, n in (scene.attack.refused + scene.attack.failed).items())
    what = "the process ended and was started anew" if ended else "the process went on"
    return f"{len(calls)} requests of {_LARGE >> 20} MiB with {_ROOM >> 20} MiB left: {outcomes}; {what}"
