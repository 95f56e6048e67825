"""`make bench-path`: which modules one warm single-image request passes, and the calls between them.

A real server on this thread, over a gRPC that is played (`testkit/played_grpc.py`): the calls of Python functions are
counted while requests are handled whose kind the server has seen before. Not counted: constructors that Python writes
(of named tuples and dataclasses, 11 a request), functions in C, other packages, other threads. That no other thread is
woken is what `tests/server/test_request_costs.py` shows.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np

import inferry_server
from testkit import onnx_models
from testkit.clock import ManualClock
from testkit.played_grpc import PlayedGrpc, played_server
from testkit.rpc import infer_request

SIDE, ROUNDS = 28, 8
_PACKAGE = str(Path(inferry_server.__file__).parent)
_ENDING = ".py"


@dataclass
class RequestPath:
    """The calls of some requests, between modules of the server and inside them.

    Attributes:
        between: how often one module called another, by caller and called.
        inside: how often a module called itself.
    """

    between: Counter[tuple[str, str]] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)

    @property
    def modules(self) -> set[str]:
        """Every module that was entered."""
        return {called for _, called in self.between} | set(self.inside)

    def profile(self, frame: FrameType, event: str, arg: object) -> None:
        """What `sys.setprofile` calls."""
        if event != "call" or (called := module_of(frame)) is None:
            return
        caller = calling_module(frame)
        if caller == called:
            self.inside[called] += 1
        elif caller is not None:
            self.between[caller, called] += 1


def module_of(frame: FrameType) -> str | None:
    """The server's module that a frame runs in, without the package's name; None for any other code."""
    file = frame.f_code.co_filename
    return file.removeprefix(_PACKAGE + "/").removesuffix(_ENDING) if file.startswith(_PACKAGE) else None


def calling_module(frame: FrameType) -> str | None:
    """The server's module nearest above a frame: what lies between is a library's, or the player's."""
    above = frame.f_back
    while above is not None:
        if (module := module_of(above)) is not None:
            return module
        above = above.f_back
    return None


def request_path(repository: Path, *, requests: int) -> RequestPath:
    """The path of so many warm requests of one image, answered one a round by the reading thread.

    A round without any is taken off: what a server does between requests is no request's.
    """
    message = infer_request("brightness", images=np.zeros((1, SIDE, SIDE, 1), np.uint8)).SerializeToString()
    onnx_models.save_brightness(repository, side=SIDE)
    played = PlayedGrpc(message, 1)
    with played_server(played, repository, clock=ManualClock()) as transport:

        def play(rounds: int) -> None:
            left = iter(range(rounds - 1, -1, -1))
            played.play(transport, lambda: next(left) == 0)

        play(ROUNDS)
        once, more = (_profiled(partial(play, rounds)) for rounds in (1, 1 + requests))
    return RequestPath(more.between - once.between, more.inside - once.inside)


def _profiled(act: Callable[[], None]) -> RequestPath:
    path = RequestPath()
    sys.setprofile(path.profile)
    try:
        act()
    finally:
        sys.setprofile(None)
    return path


def main() -> None:
    """Print the modules, and who calls whom, of one request."""
    parser = argparse.ArgumentParser(prog="make bench-path", description="The path of one warm request.")
    parser.add_argument("--requests", type=int, default=10, help="how many to count (default: 10)")
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        path = request_path(Path(folder), requests=requests)
    print("| from | to | calls a request |\n| --- | --- | --- |")
    for (caller, called), count in path.between.most_common():
        print(f"| {caller} | {called} | {count / requests:g} |")
    between, inside = path.between.total() / requests, path.inside.total() / requests
    print(f"\n{len(path.modules)} modules; {between:g} calls between modules and {inside:g} inside them a request")


if __name__ == "__main__":
    main()
