"""`make bench-degrade`: what is useful of twice a model's capacity, with and without its int8 variant.

    python -m bench.degrade --data-dir DIR      # with MNIST's files; trains and exports first, once

An open loop sends MNIST's test pictures, so many a request, at twice the rate at which the float32 model answers in a
closed loop just before. An answer is useful if it comes within the objective, counted from when its request was due.
More is not possible than the variant answers in a closed loop, by itself: beside what was useful stands that bound.
The accuracy is judged on the same pictures, all of the labelled set: as the float32 model answers them, and as the
variant answered them in its place under load (by its own name, what it never answered there). The run fails if the
variant loses more than its gates allow. The client is this process, on the same cores: the share of a core that it
needs and how late it sent are printed.
"""

import argparse
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.labelled_pictures import Answered, Pictures, read_mnist
from bench.same_pictures import Compared, SamePictures
from bench.server_process import started
from inferry_proto.manifest import read_manifest
from inferry_proto.services import OPEN_INFERENCE

ROOT = Path(__file__).resolve().parents[1]
MODEL, VARIANT = "mnist", "mnist-int8"
OBJECTIVE_MS, TIMES, GOAL = 100.0, 2.0, 0.9
_UNDER_WAY = 16  # requests of a closed loop: two batches wait while one runs
_FEW, _ATTEMPTS = 4, 10  # requests under way where each is to be answered; how often a refused one is sent
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """What came of an open loop.

    Attributes:
        useful: share of what was sent that was answered within the objective.
        by_variant: share of the answers that the variant gave.
        variant_rights: what the variant answered: the request's number, and how many pictures rightly.
        client_cores: CPU seconds of this process a second.
        behind_ms: how late a request was sent at worst.
    """

    useful: float
    by_variant: float
    variant_rights: Sequence[tuple[int, int]]
    client_cores: float
    behind_ms: float


class Load:
    """Requests on a channel. One thread sends; gRPC's threads take the answers."""

    def __init__(self, channel: grpc.Channel, requests: Sequence[bytes]) -> None:
        self._ask: Any = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
        self._requests = requests
        self._changed = threading.Condition()
        self._ended = 0
        self.answers: list[Answered] = []
        self.refusal = ""  # the latest

    def send(self, number: int, due: float) -> None:
        """Send a request that was due at a time of `perf_counter`."""
        number %= len(self._requests)
        future = self._ask.future(self._requests[number])  # a deadline of its own would replace the objective
        future.add_done_callback(lambda done: self._note(done, number, due))

    def wait_for(self, ended: int) -> None:
        """Wait until so many requests have ended, answered or refused."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended >= ended, 2 * _PATIENCE_S):
                raise TimeoutError(f"{self._ended} of {ended} requests ended within {2 * _PATIENCE_S:g} s")

    def _note(self, done: Any, number: int, due: float) -> None:
        seconds = time.perf_counter() - due
        answered = done.code() is grpc.StatusCode.OK
        with self._changed:
            if answered:
                self.answers.append(Answered(number, seconds, done.result()))
            else:
                self.refusal = f"{done.code().name}: {done.details()}"
            self._ended += 1
            self._changed.notify()


def closed_loop(channel: grpc.Channel, requests: Sequence[bytes], seconds: float) -> float:
    """Answers a second with `_UNDER_WAY` requests under way."""
    load, sent, began = Load(channel, requests), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        load.send(sent, time.perf_counter())
        sent += 1
        if sent >= _UNDER_WAY:
            load.wait_for(sent - _UNDER_WAY + 1)
    load.wait_for(sent)
    return len(load.answers) / (time.perf_counter() - began)


def open_loop(
    channel: grpc.Channel,
    requests: Sequence[bytes],
    pictures: Pictures,
    *,
    rate: float,
    seconds: float,
    objective_ms: float = OBJECTIVE_MS,
) -> Outcome:
    """What comes of requests at a fixed rate, whatever comes back."""
    load, total, behind_s = Load(channel, requests), int(rate * seconds), 0.0
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(total):
        due = began + number / rate
        while (now := time.perf_counter()) < due:
            time.sleep(due - now)
        behind_s = max(behind_s, now - due)
        load.send(number, due)
    load.wait_for(total)
    cores = (time.process_time() - cpu) / (time.perf_counter() - began)
    judged = [pictures.right(answer) for answer in load.answers]
    answers = max(1, len(judged))
    return Outcome(
        useful=sum(answer.seconds <= objective_ms / 1e3 for answer in load.answers) / total,
        by_variant=sum(by_variant for _, by_variant in judged) / answers,
        variant_rights=[
            (answer.request, right)
            for answer, (right, by_variant) in zip(load.answers, judged, strict=True)
            if by_variant
        ],
        client_cores=cores,
        behind_ms=behind_s * 1e3,
    )


def ask_each(channel: grpc.Channel, requests: Sequence[bytes], numbers: Sequence[int]) -> list[Answered]:
    """The answer to each of these requests, few at a time; one that is refused is sent again.

    Raises:
        RuntimeError: some are refused again and again.
    """
    answers: list[Answered] = []
    for _ in range(_ATTEMPTS):
        load = Load(channel, requests)
        for sent, number in enumerate(numbers, start=1):
            load.send(number, time.perf_counter())
            load.wait_for(sent - _FEW)
        load.wait_for(len(numbers))
        answers += load.answers
        answered = {answer.request for answer in load.answers}
        numbers = [number for number in numbers if number not in answered]
        if not numbers:
            return answers
    raise RuntimeError(f"{len(numbers)} requests were refused {_ATTEMPTS} times, the latest with {load.refusal}")


def judge_variant(
    channel: grpc.Channel, pictures: Pictures, under_load: Sequence[tuple[int, int]], *, model: str, variant: str
) -> Compared:
    """Both accuracies on the whole labelled set.

    Args:
        channel: to the server.
        pictures: the set.
        under_load: what the variant answered in place of the model, as `Outcome.variant_rights`.
        model: its name.
        variant: its name, for the pictures that it did not answer under load.
    """
    same = SamePictures(pictures.rows)
    plain, alone = (pictures.requests(name, accept_variant=False) for name in (model, variant))
    for answer in ask_each(channel, plain, range(len(plain))):
        same.add_of_model(answer.request, pictures.right(answer)[0])
    for request, right in under_load:
        same.add_of_variant(request, right)
    for answer in ask_each(channel, alone, same.without_variant()):
        same.add_of_variant(answer.request, pictures.right(answer)[0])
    return same.compare()


def exported(out: Path, data: Path, *, epochs: int) -> Path:
    """The repository with the model and its variant, trained and exported where that was not done before."""
    models = out / "models"
    if not (models / VARIANT).is_dir():
        train = str(Path(sys.executable).with_name("inferry-train"))
        run = [train, "run", "mnist", "--out", str(out / "run"), "--epochs", str(epochs), "--data-dir", str(data)]
        subprocess.run(run, check=True, stdout=sys.stderr)
        export = [train, "export", str(out / "run"), "--repository", str(models), "--precision", "float32,int8"]
        subprocess.run(export, check=True, stdout=sys.stderr)
    return models


def points_lost(models: Path) -> tuple[float, float]:
    """Percentage points of accuracy that the variant lost by its gates, and how many it might have."""
    manifest = read_manifest(models / VARIANT / "1")
    assert manifest is not None
    (gate,) = [gate for gate in manifest.gates if gate.name == "accuracy-drop"]
    return gate.figures["points"], gate.figures["points_limit"]


def possible(peak: float, faster: float) -> float:
    """The share of `TIMES` x the model's peak that could be useful at best: what the variant alone answers.

    Args:
        peak: answers a second of the model, in a closed loop.
        faster: of the variant.
    """
    return min(1.0, max(peak, faster) / (TIMES * peak))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-degrade", description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder with MNIST's four files")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "degrade")
    parser.add_argument("--epochs", type=int, default=1, help="of training, where nothing was exported yet (1)")
    parser.add_argument("--rows", type=int, default=8, help="pictures a request (8)")
    parser.add_argument("--rounds", type=int, default=3, help="of everything (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each open loop (5)")
    args = parser.parse_args()
    models = exported(args.out, args.data_dir, epochs=args.epochs)
    pictures = read_mnist(args.data_dir, args.rows)
    plain, accepting = (pictures.requests(MODEL, accept_variant=accept) for accept in (False, True))
    alone = pictures.requests(VARIANT, accept_variant=False)
    rounds: list[tuple[float, float, Outcome, Outcome]] = []
    with started(models, "--latency-objective-ms", f"{OBJECTIVE_MS:g}", "--provider", "cpu") as (_, line):
        address = line.split("gRPC ")[1].split(",")[0]
        with grpc.insecure_channel(address) as channel:
            closed_loop(channel, plain, 1.0)
            for _ in range(args.rounds):
                peak = closed_loop(channel, plain, args.seconds / 2)
                faster = closed_loop(channel, alone, args.seconds / 2)
                loops = [
                    open_loop(channel, requests, pictures, rate=TIMES * peak, seconds=args.seconds)
                    for requests in (plain, accepting)
                ]
                rounds.append((peak, faster, loops[0], loops[1]))
                print(_row(rounds[-1]), flush=True)
            under_load = [right for one in rounds for right in one[3].variant_rights]
            compared = judge_variant(channel, pictures, under_load, model=MODEL, variant=VARIANT)
    lost, limit = points_lost(models)
    without = statistics.median(one[2].useful for one in rounds)
    useful = statistics.median(one[3].useful for one in rounds)
    print(f"\nuseful at {TIMES:g} x float32's peak, medians: {without:.2f} without, {useful:.2f} with the variant")
    most = statistics.median(possible(peak, faster) for peak, faster, *_ in rounds)
    reached = statistics.median(one[3].useful / possible(*one[:2]) for one in rounds)
    print(f"possible with the variant's own peak, medians: {most:.2f}; of that, {reached:.2f} was useful")
    print(f"goal: {GOAL:g} useful: {'reached' if useful >= GOAL else 'missed'}")
    within = compared.is_within(limit)
    print(
        f"accuracy on the same {compared.pictures} pictures: {compared.model:.4f} float32, "
        f"{compared.variant:.4f} int8; {compared.points_lost:.3f} points lost, {lost:.3f} by its gates, "
        f"{limit:g} at most: {'kept' if within else 'exceeded'}"
    )
    return 0 if within else 1


def _row(one: tuple[float, float, Outcome, Outcome]) -> str:
    peak, faster, plain, degrading = one
    return (
        f"int8 / float32 peak {faster / peak:.2f} ({peak:.0f} requests/s); useful {plain.useful:.2f} without, "
        f"{degrading.useful:.2f} with, of {possible(peak, faster):.2f} possible, "
        f"{degrading.by_variant:.2f} of the answers by the variant; "
        f"client {degrading.client_cores:.2f} cores, "
        f"{degrading.behind_ms:.0f} ms behind at worst"
    )


if __name__ == "__main__":
    sys.exit(main())
