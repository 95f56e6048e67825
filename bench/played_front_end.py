"""Plays front ends: asks the owner of the models over their socket, with so many requests at a time, and counts.

As real front ends do under load, it sends sixteen requests at once. Its result is a line of JSON.
"""

import json
import os
import socket
import sys
import time
from dataclasses import dataclass

import psutil

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.front_ends import records

_AT_ONCE = 16
_READ_BYTES = 1 << 18
_AGAIN_AFTER_S = 0.05
_WARM_S = 1.0
_DEADLINE_S = 10.0


@dataclass
class Player:
    """One end of the socket.

    Attributes:
        path: of ModelInfer, as the owner numbers it.
        message: that is sent again and again.
        at_a_time: requests.
        number: of the latest one.
    """

    end: socket.socket
    reader: records.RecordReader
    path: int
    message: bytes
    at_a_time: int
    number: int = 0

    def wait_until_answered(self) -> None:
        """Ask for a single request until the model is there."""
        while True:
            self._send(time.monotonic(), 1)
            for kind, *_ in self.reader.read(self.end.recv(_READ_BYTES)):
                if kind == records.REPLY:
                    return
            time.sleep(_AGAIN_AFTER_S)

    def ask(self, seconds: float) -> int:
        """Ask for so long, and wait for every reply; returns how many there were.

        Raises:
            RuntimeError: a request was refused.
        """
        until, waiting, replies = time.monotonic() + seconds, 0, 0
        while True:
            now = time.monotonic()
            while now < until and waiting + _AT_ONCE <= self.at_a_time:
                self._send(now, _AT_ONCE)
                waiting += _AT_ONCE
            if not waiting:
                return replies
            for kind, _, body, _ in self.reader.read(self.end.recv(_READ_BYTES)):
                if kind == records.END:
                    raise RuntimeError(f"refused: {records.read_status(body)}")
                if kind == records.REPLY:
                    waiting -= 1
                    replies += 1

    def _send(self, now: float, requests: int) -> None:
        opening = records.write_opening(self.path, now + _DEADLINE_S, now, records.write_metadata(()))
        pieces = []
        for _ in range(requests):
            self.number += 1
            pieces.append(records.write(records.UNARY, self.number, opening, self.message))
        self.end.sendall(b"".join(pieces))


def main(descriptor: str, message: str, at_a_time: str, seconds: str) -> None:
    """Play until everything was asked, and wait for the owner to stop.

    Args:
        descriptor: of the socket to the owner.
        message: a ModelInferRequest, in hexadecimal digits.
        at_a_time: requests.
        seconds: to measure for.
    """
    end, reader = socket.socket(fileno=int(descriptor)), records.RecordReader()
    path = _path_of_model_infer(end, reader)
    end.sendall(records.write(records.LISTENING, 0))
    player = Player(end, reader, path, bytes.fromhex(message), int(at_a_time))
    owner = psutil.Process(os.getppid())
    player.wait_until_answered()
    player.ask(_WARM_S)
    began, before = time.monotonic(), owner.cpu_times()
    replies = player.ask(float(seconds))
    took, after = time.monotonic() - began, owner.cpu_times()
    owner_s = after.user + after.system - before.user - before.system
    print(json.dumps({"requests": replies, "seconds": took, "owner_s": owner_s}), flush=True)
    while not any(kind == records.STOP for kind, *_ in reader.read(end.recv(_READ_BYTES))):
        pass
    end.sendall(records.write(records.STOPPED, 0, b"\1"))


def _path_of_model_infer(end: socket.socket, reader: records.RecordReader) -> int:
    while True:
        for kind, _, body, _ in reader.read(end.recv(_READ_BYTES)):
            if kind == records.PLAN:
                plan = json.loads(body)
                return int([*plan["unary"], *plan["streams"]].index(OPEN_INFERENCE["ModelInfer"].path))


if __name__ == "__main__":
    main(*sys.argv[1:])
