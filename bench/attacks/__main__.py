"""`make bench-attacks`: the same attacks on Inferry and on Triton (2.51, Python backend), each on a new server.

A good caller asks beside each attack. What is measured: the memory of the server's process tree, how long the good
caller waited at most, and whether memory came back. Everything is on loopback and bounded in number and time; a
server that takes 3.5 GB is ended.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bench.attacks.by_grpc import BESIDE, MODELS_BESIDE
from bench.attacks.by_outputs import save_long, save_wide
from bench.attacks.by_pictures import MODEL as PICTURES
from bench.attacks.honest import CLASSES, INPUT, SIDE
from bench.attacks.measure import Outcome, measure
from bench.attacks.report import line_of, write_table
from bench.attacks.table import ATTACKS, SERVERS, Attack
from bench.contenders import COMPARED_CONFIG, OUTPUT, Contender, Further
from bench.environments import environment
from bench.processes import free_port
from testkit import onnx_models

ROOT = Path(__file__).resolve().parents[2]
Outcomes = dict[str, dict[str, Outcome]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where a server of ours ended or gave a wrong answer."""
    parser = argparse.ArgumentParser(prog="make bench-attacks", description=__doc__)
    parser.add_argument("--only", action="append", metavar="TEXT", help="attacks whose names contain it")
    parser.add_argument("--server", action="append", choices=SERVERS, help="on this one alone")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "attacks.json",
                        help="keeps what was measured, also by earlier calls (%(default)s)")  # fmt: skip
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put what was measured into the table of a page, as SECURITY.md"
    )
    parsed = parser.parse_args(arguments)
    chosen = [one for one in ATTACKS if not parsed.only or any(text in one.name for text in parsed.only)]
    if not chosen:
        parser.error(f"no attack is named like {parsed.only}; expected {', '.join(one.name for one in ATTACKS)}")
    os.environ["GRPC_VERBOSITY"] = "NONE"  # attackers whose calls are ended say so at length
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench-attacks: stopped"))  # servers are stopped on the way out
    servers = parsed.server or SERVERS
    if any("triton" in one.servers for one in chosen if "triton" in servers):
        environment("triton")
    outcomes = read(parsed.out)
    with tempfile.TemporaryDirectory(prefix="inferry-attacks-") as name:
        model = Path(name) / "model.onnx"
        save_grey(model)
        for number, attack in enumerate(chosen):
            for server in servers if number % 2 else reversed(servers):
                if server not in attack.servers:
                    continue
                outcome = play(attack, server, model, Path(name) / f"{number}-{server}")
                print(line_of(attack.name, server, outcome), flush=True)
                outcomes.setdefault(attack.name, {})[server] = outcome
                write(parsed.out, outcomes)
    if parsed.write is not None:
        write_table(parsed.write, [(one.name, one.cases, outcomes.get(one.name, {})) for one in ATTACKS])
    ours = [outcomes[one.name]["inferry"] for one in chosen if "inferry" in outcomes[one.name]]
    return int(any(outcome.ended or outcome.lost["WRONG"] for outcome in ours))


def read(file: Path) -> Outcomes:
    """What was measured before; nothing where there is no file."""
    if not file.exists():
        return {}
    return {
        attack: {server: Outcome.from_json(one) for server, one in each.items()}
        for attack, each in json.loads(file.read_text()).items()
    }


def write(file: Path, outcomes: Outcomes) -> None:
    """Keep what was measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    measured = {attack: {server: vars(one) for server, one in each.items()} for attack, each in outcomes.items()}
    file.write_text(json.dumps(measured, indent=1))


def play(attack: Attack, server: str, model: Path, folder: Path) -> Outcome:
    """Attack a new server."""
    http = free_port() if server == "triton" else 0
    flags = () if server == "triton" else ("--http-inference", "on", *attack.flags)
    cores, further = len(os.sched_getaffinity(0)), further_models(attack, model, folder.with_suffix(".models"))
    contender = Contender(server, server, model, cores, flags, http_port=http, further=further)
    with contender.serve(folder) as running:
        http = http or int(running.metrics.split(":")[2].split("/")[0])
        return measure(attack, grpc=running.port, http=http, process=running.process)


def further_models(attack: Attack, model: Path, folder: Path) -> tuple[Further, ...]:
    """What an attack needs besides the model that the good caller asks."""
    if attack.name.startswith("pictures"):
        return (Further(onnx_models.save_brightness(folder, name=PICTURES, side=SIDE).parent),)
    if attack.name.startswith("outputs"):
        return (save_wide(folder), save_long(folder))
    if attack.name.endswith("many models"):
        return tuple(beside(model, folder / f"{BESIDE}{number}") for number in range(MODELS_BESIDE))
    return ()


def beside(model: Path, folder: Path) -> Further:
    """The good caller's model under another name."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").symlink_to(model)
    return Further(folder, f"{COMPARED_CONFIG}dynamic_batching {{ }}\n")


def save_grey(path: Path) -> None:
    """A model of no weight: ten times the mean brightness of each picture."""
    onnx_models.save_model(
        path,
        [
            helper.make_node("Cast", [INPUT], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["levels", "white"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled"], ["lines"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["lines"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["mean", "ones"], [OUTPUT]),
        ],
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", CLASSES])],
        [
            numpy_helper.from_array(np.array(255, np.float32), "white"),
            numpy_helper.from_array(np.ones((1, CLASSES), np.float32), "ones"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
