"""`inferry batch`: a job with a progress bar."""

import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pyarrow  # noqa: F401 - found missing before anything is asked or written

from inferry_client.batch.arguments import check_arguments, is_merge
from inferry_client.batch.classifier import TargetSettings
from inferry_client.batch.decode import DecodeSettings
from inferry_client.batch.decoding import Decoder, InlineDecoder, ProcessDecoder
from inferry_client.batch.errors import JobError, StoppedError, StopSignal
from inferry_client.batch.inputs import Input, InputOptions, open_inputs
from inferry_client.batch.job import Engine, LocalEngine, Summary, run_job
from inferry_client.batch.keeping import Draining
from inferry_client.batch.merge import merge
from inferry_client.batch.opening import Job, open_job, plan_job
from inferry_client.batch.plan import Plan, part_count
from inferry_client.batch.predict import JOB_RETRIES, Target, open_server_target
from inferry_client.batch.priority import quick_switches
from inferry_client.batch.progress import progress_bar, progress_events
from inferry_client.batch.report import cluster_report_lines, report_lines
from inferry_client.batch.settings import BatchSettings
from inferry_client.batch.shard import read_shard
from inferry_client.batch.store import JobFolder
from inferry_client.batch.version_folder import read_model_files
from inferry_client.batch.window import Limit, Window
from inferry_client.client import Client
from inferry_client.connecting.security import NO_SECURITY, security_from_environment
from inferry_client.console.output import say
from inferry_client.console.stopping import STOPPED
from inferry_client.retries import NO_RETRIES
from inferry_proto.cores import available_cores

_FEW_PICTURES = 512  # are decoded before a process has started


def run(args: Namespace) -> int:
    """Run or resume a job; the exit status is 0 if it is complete, and no more pictures failed than may."""
    check_arguments(args)
    if is_merge(args):
        return run_merge(args)
    workers = args.workers or default_workers(available_cores())
    settings = read_settings(args, workers)
    source = open_inputs(args.inputs, read_input_options(args))
    try:
        with quick_switches(), stopped_by_sigterm(settings.grace_s) as draining:
            return run_until_stopped(args, settings, source, draining)
    except StoppedError as error:
        print(f"inferry: {error}", file=sys.stderr)
        return STOPPED


def run_until_stopped(args: Namespace, settings: BatchSettings, source: Input, draining: Draining) -> int:
    """Run a job to its end.

    Raises:
        StoppedError: it was told to stop.
    """
    window = Window(Limit(most=settings.workers))
    with ExitStack() as stack:
        open_target = stack.enter_context(target_opener(args, window))
        if args.dry_run:
            return dry_run(source, settings, open_target)
        decoding = stack.enter_context(Decoding(args.decoders, settings.max_file_bytes))
        found = decoding.expect if args.engine == "local" else _nothing
        job = stack.enter_context(open_job(source, settings, open_target, found=found))
        for line in (*describe_left_out(source), *describe_gone(job)):
            print(line, file=sys.stderr)
        engine = open_engine(args, job, decoding)
        progress = stack.enter_context(
            progress_events(job.pictures, write=write_event) if args.json_progress else progress_bar(job.pictures)
        )
        summary = run_job(job, engine, progress=progress, draining=draining)
    say(describe(summary, job.store))
    if args.report:
        for line in describe_times(args, summary, decoders=decoding.processes, window=window, settings=settings):
            say(line)
    if summary.classified == 0 and summary.bad:
        raise JobError(f"none of the pictures could be classified; {job.store.errors_file} says why")
    return 0


def run_merge(args: Namespace) -> int:
    """`inferry batch merge [SHARD ...] --out DIR`; a folder of pictures that is called so is given as `./merge`."""
    plan, classified, bad = merge(args.out, args.inputs[1:])
    say(
        f"merged {classified + bad} pictures, {classified} classified with {plan.model} version {plan.model_version}, "
        f"into {args.out}"
    )
    return 0


@contextmanager
def target_opener(args: Namespace, window: Window) -> Iterator[Callable[[Plan | None], Target]]:
    """Opens what answers: servers, or a version's folder in this process."""
    if args.onnx is not None:
        from inferry_client.batch.onnx_target import open_onnx_target

        yield lambda _: open_onnx_target(Path(args.onnx), threads=available_cores())
        return
    with Client(args.server, timeout_s=args.timeout_s, retries=NO_RETRIES) as client:
        yield lambda begun: open_server_target(
            client, name=args.model, version=args.version, begun=begun, window=window, retries=JOB_RETRIES
        )


def dry_run(source: Input, settings: BatchSettings, open_target: Callable[[Plan | None], Target]) -> int:
    """Say what the job would do."""
    job = plan_job(source, settings, open_target)
    plan = job.plan
    for line in (*describe_left_out(source), *describe_gone(job)):
        print(line, file=sys.stderr)
    done = sum(1 for part in job.done if part >= plan.first_part)
    say(
        f"would classify {plan.picture_count} {'new ' if job.earlier else ''}pictures in {part_count(plan)} parts of "
        f"{plan.part_size}, {done} of them complete, with {plan.model} version {plan.model_version} into {job.store}"
    )
    return 0


def read_input_options(args: Namespace) -> InputOptions:
    """How inputs are to be read."""
    return InputOptions(
        recursive=args.recursive,
        follow_links=args.follow_links,
        max_file_bytes=args.max_file_bytes,
        column=args.column,
        id_column=args.id_column,
    )


def read_settings(args: Namespace, workers: int) -> BatchSettings:
    """The settings that the arguments state."""
    return BatchSettings(
        out=args.out,
        model=args.model,
        version=args.version,
        batch_size=args.batch_size,
        part_size=args.part_size,
        workers=workers,
        output=args.format,
        top_k=args.top_k,
        all_probabilities=args.all_probabilities,
        overwrite=args.overwrite,
        incremental=args.incremental,
        max_errors=args.max_errors,
        max_file_bytes=args.max_file_bytes,
        grace_s=args.grace_s,
        shard=read_shard(args.shard, os.environ),
    )


def default_workers(cores: int) -> int:
    """Requests under way at a time: while some wait for the server, others are made."""
    return min(16, max(4, 2 * cores))


def decoder_count(asked: int | None, pictures: int) -> int:
    """Processes that decode; 0 where the threads that send do it."""
    cores = available_cores()
    if asked is not None:
        return asked
    return 0 if pictures <= _FEW_PICTURES or cores == 1 else cores


def open_engine(args: Namespace, job: Job, decoding: "Decoding") -> Engine:
    """What makes a job's parts: this machine, or a Ray cluster."""
    if args.engine == "ray":
        from inferry_client.batch.ray_data.engine import RayEngine

        return RayEngine(read_target_settings(args, job), actors=args.workers)
    return LocalEngine(decoding.decoder(job.target))


class Decoding:
    """Decides who decodes a job's pictures. Processes begin as soon as enough pictures were found for them.

    Attributes:
        processes: that decode; 0: the threads that send do it.
    """

    def __init__(self, asked: int | None, most_bytes: int) -> None:
        self.processes = 0
        self._asked = asked
        self._most_bytes = most_bytes
        self._stack = ExitStack()
        self._started: ProcessDecoder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def expect(self, target: Target, pictures: int) -> None:
        """There are so many pictures at least: processes may begin, if there are to be any."""
        if self._started is None and (processes := decoder_count(self._asked, pictures)):
            self.processes = processes
            decoder = ProcessDecoder(self._settings(target), processes=processes)
            self._started = self._stack.enter_context(decoder)

    def decoder(self, target: Target) -> Decoder:
        """What decodes, once all pictures were found."""
        return self._started or InlineDecoder(self._settings(target))

    def _settings(self, target: Target) -> DecodeSettings:
        return DecodeSettings(target.model.preprocessing.SerializeToString(), self._most_bytes)


def read_target_settings(args: Namespace, job: Job) -> TargetSettings:
    """What actors ask: the version that was opened here, sent to them where it is a folder."""
    model = job.target.model
    if args.onnx is not None:
        return TargetSettings(onnx=read_model_files(Path(args.onnx)))
    return TargetSettings(
        server=args.server,
        model=model.model,
        version=model.version,
        timeout_s=args.timeout_s,
        security=security_from_environment(NO_SECURITY),
    )


@contextmanager
def stopped_by_sigterm(grace_s: float) -> Iterator[Draining]:
    """A job that SIGTERM tells to stop, and a second one to stop at once."""
    draining = Draining(grace_s)
    if threading.current_thread() is not threading.main_thread():
        yield draining
        return
    before = signal.signal(signal.SIGTERM, lambda *_: draining.begin())
    try:
        yield draining
    except (StopSignal, Exception):
        if draining.early:  # an import that it interrupts makes an error of its own of it
            draining.check()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def describe(summary: Summary, store: JobFolder) -> str:
    """The summary in one line."""
    plan, bad = summary.plan, summary.bad
    resumed = f" ({summary.resumed} done in earlier runs)" if summary.resumed else ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.kinds.items()))
    errors = f"; {bad} could not be classified ({kinds}), see {store.errors_file}" if bad else ""
    new, answered = summary.classified + bad - summary.earlier, summary.classified
    kept = ""
    if summary.earlier:
        answered -= summary.earlier - summary.earlier_bad
        kept = f", beside {summary.earlier} of earlier runs"
    return (
        f"classified {answered} of {new} {'new ' if kept else ''}pictures{resumed} with {plan.model} version "
        f"{plan.model_version} in {summary.times.wall_s:.1f} s into {store}{kept}{errors}"
    )


def describe_gone(job: Job) -> list[str]:
    """What of earlier runs is not in the input any more, in one line."""
    if job.gone is None:
        return []
    return [
        f"{job.plan.gone_count} of the {job.earlier} pictures of earlier runs are not in the input any more, "
        f"{job.gone!r} among them; their results are kept"
    ]


def describe_times(
    args: Namespace, summary: Summary, *, decoders: int, window: Window, settings: BatchSettings
) -> list[str]:
    """Where the time went."""
    if args.engine == "ray":
        return cluster_report_lines(summary.times)
    return report_lines(summary.times, decoders=decoders, workers=settings.workers, refusals=window.refusals)


def describe_left_out(source: Input) -> list[str]:
    """What of the input is no picture, in one line."""
    if not source.left_out:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in source.left_out.most_common(8))
    return [f"left out as no pictures: {kinds}"]


def _nothing(*_: object) -> None:
    """Nobody decodes here."""


def write_event(line: str) -> None:
    """One line of progress, at once."""
    sys.stderr.write(line)
    sys.stderr.flush()
