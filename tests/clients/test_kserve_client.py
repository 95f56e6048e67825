"""KServe's own REST client, unchanged, with this server; $INFERRY_PEERS as in `test_other_servers.py`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from testkit import onnx_models
from testkit.servers import running_server

pytestmark = pytest.mark.slow


def test_kserves_client_is_answered_as_json_and_as_bytes(tmp_path: Path) -> None:
    python = Path(os.environ.get("INFERRY_PEERS", "/nonexistent")) / "kserve" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"kserve is not installed: no {python}; set INFERRY_PEERS (see test_other_servers.py)")
    onnx_models.save_doubler(tmp_path)
    program = Path(__file__).parent / "peers" / "kserve_client.py"
    with running_server(tmp_path) as server:
        assert server.http_address is not None
        command = [str(python), str(program), str(server.http_address.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["live"], told["ready"], told["model ready"]) == (True, True, True)
    doubled = [[3.0, -4.0, 6.0], [8.0, 10.0, 12.0]]
    ids = [f"{binary} {turn}" for binary in (False, True) for turn in range(3)]
    assert told["answers"] == [[request_id, "doubler", doubled] for request_id in ids]
    assert "model 'cats' is not in the repository" in told["error"]
