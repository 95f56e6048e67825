"""The example for thousands of pictures, as its users run it: a program of its own, while a server restarts."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inferry_client import Client
from testkit import brightness_model
from testkit.certificates import Authority
from testkit.onnx_models import save_brightness
from testkit.server_processes import server_processes
from testkit.waiting import wait_until

PICTURES = 10_000
EXAMPLE = Path(__file__).parents[2] / "examples" / "many_pictures.py"


def answered(client: Client) -> int:
    """How many pictures a server has answered since it started."""
    return sum(model.rows for model in client.statistics("mnist"))


@pytest.mark.slow
def test_ten_thousand_pictures_are_classified_rightly_behind_mutual_tls_while_a_replica_restarts(
    tmp_path: Path,
) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 20
    save_brightness(tmp_path / "models", name="mnist", side=8)
    keys = Authority(tmp_path, "authority")
    server_key, client_key = keys.issue("server", "IP:127.0.0.1"), keys.issue("client", "DNS:caller")
    (tmp_path / "in").mkdir()
    dark_and_bright = [brightness_model.picture(level) for level in (0, 255)]
    for number in range(PICTURES):
        (tmp_path / "in" / f"{number:05}.png").write_bytes(dark_and_bright[number % 2])
    tls = ["--tls-certificate", str(server_key.certificate), "--tls-private-key", str(server_key.key)]
    with server_processes(tmp_path / "models", 2, *tls, "--tls-client-ca", str(keys.certificate)) as servers:
        environment = os.environ | {
            "INFERRY_SERVER": ",".join(server.address for server in servers),
            "INFERRY_CA": str(keys.certificate),
            "INFERRY_CERTIFICATE": str(client_key.certificate),
            "INFERRY_PRIVATE_KEY": str(client_key.key),
        }
        command = [sys.executable, str(EXAMPLE), "mnist", str(tmp_path / "in")]
        mine: dict[str, Any] = {
            "ca": keys.certificate,
            "certificate": client_key.certificate,
            "private_key": client_key.key,
        }
        with (
            Client(servers[1].address, timeout_s=20, **mine) as second,
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as program,
        ):
            wait_until(lambda: answered(second) > PICTURES / 100, "pictures on their way", look_again_s=0.05)
            servers[1].terminate()
            servers[1].start()
            running = program.poll() is None
            printed, said = program.communicate(timeout=240)
    assert (program.returncode, said) == (0, "")
    assert running, "the program had ended before the server was back"
    assert printed.split()[1::2] == ["dark", "bright"] * (PICTURES // 2)
    assert Counter(printed.split()[::2]).total() == PICTURES
