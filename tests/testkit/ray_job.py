"""A batch job on a Ray cluster of two nodes, raylets of their own, of which one is killed in the middle.

    python -m testkit.ray_job OUT KILL_AFTER_PARTS ARGUMENTS OF INFERRY BATCH...

Prints a JSON object. Run by an interpreter that has Ray, apart from the tests' own.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from inferry_client.cli import main

DEADLINE_S = 240.0


def run(out: Path, kill_after: int, arguments: list[str]) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200 << 20})
    second = cluster.add_node(num_cpus=2, object_store_memory=200 << 20)
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    killed: list[float] = []

    def kill() -> None:
        ends_at = time.monotonic() + DEADLINE_S
        while time.monotonic() < ends_at:
            if len(list(out.glob("part-*"))) >= kill_after:
                cluster.remove_node(second, allow_graceful=False)
                killed.append(len(list(out.glob("part-*"))))
                return
            time.sleep(0.02)

    if kill_after:
        threading.Thread(target=kill, daemon=True).start()
    started = time.monotonic()
    status = main(["batch", *arguments, "--out", str(out), "--engine", "ray"])
    seconds = time.monotonic() - started
    print(json.dumps({"status": status, "killed_after_parts": killed, "seconds": seconds}))
    cluster.shutdown()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
