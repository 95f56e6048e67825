"""`inferry-serve` whose models compute in memory that is lost after so many batches: LOST_AFTER ARGUMENTS...

ONNX Runtime and everything above it are real; the CPU plays the device.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferry_server.__main__ import main
from inferry_server.models import opening
from inferry_server.runtime.device_errors import CudaCallError
from inferry_server.runtime.instances import LoadedSession
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import load_session
from testkit.fake_device import ILLEGAL_ACCESS, FaultyMemory


def opened_with(memory: FaultyMemory) -> Callable[..., LoadedSession]:
    """What `open_session` is replaced by: every session computes in that memory."""

    def open_session(path: Path, providers: Any, devices: Any, **options: Any) -> LoadedSession:
        return LoadedSession(load_session(path, providers=(CPU,), intra_op_num_threads=1), memory)

    return open_session


if __name__ == "__main__":
    faulty = FaultyMemory()
    faulty.fail_with = [None] * int(sys.argv[1])
    faulty.always_fail_with = CudaCallError("cudaStreamSynchronize", ILLEGAL_ACCESS, "an illegal memory access")
    vars(opening)["open_session"] = opened_with(faulty)
    sys.exit(main([*sys.argv[2:], "--no-parallel-runs"]))  # which a device has not
