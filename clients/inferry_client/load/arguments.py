"""Which arguments of `inferry load` go together. One that would do nothing is refused, not ignored."""

import os
from argparse import Namespace
from pathlib import Path

from inferry_client.connecting.security import ENVIRONMENT
from inferry_client.console.misuse import refuse_useless
from inferry_client.load.compare import LEAST_SOAK_S
from inferry_client.load.errors import ArgumentsError
from inferry_client.load.payloads import FOLDERS
from inferry_client.load.schedule import MAX_REQUESTS, Load
from inferry_client.load.summary import Gates

_DURATION_S, _TRIAL_S = 30, 5
_MOST_ERRORS, _MOST_ERRORS_OF_PEAK = 0.0, 0.001  # share of requests, where nothing is said
_OF_USERS = ("--users", "--spawn-rate")
_OF_SCHEDULES = ("--arrivals", "--seed")
_OF_COMPARISONS = ("--verbose",)
_PEM_FILES = ("ca", "certificate", "private_key")  # flags are in the environment while a command runs


def check_arguments(args: Namespace) -> None:
    """See that the arguments make one test.

    Raises:
        ArgumentsError: two of them contradict each other.
        MisuseError: one has nothing to act on.
    """
    if args.action:
        _check_comparison(args)
        return
    opened = args.find_peak or args.rate is not None
    refuse_useless(args.given, _OF_USERS if opened else (), "an open loop (--rate, --find-peak) has no users")
    refuse_useless(args.given, () if opened else _OF_SCHEDULES, "users send as soon as they are answered")
    if args.arrivals == "constant":
        refuse_useless(args.given, ("--seed",), "--arrivals constant leaves nothing to chance")
    if not opened and (args.processes or 1) > args.users:
        raise ArgumentsError(
            f"--processes {args.processes} came for --users {args.users}; expected a user or more for each process"
        )
    _check_search(args)
    _check_soak(args)
    if args.rate and (load := Load(args.rate, duration_of(args))).requests > MAX_REQUESTS:
        raise ArgumentsError(
            f"--rate {','.join(f'{rate:g}' for rate in load.rates)} for {load.duration_s:g} s is {load.requests:,.0f} "
            f"requests; expected up to {MAX_REQUESTS:,} in a test, since all are kept in memory"
        )


def check_files(args: Namespace) -> None:
    """See that no file that is written is another that is written, or one that is read.

    Raises:
        ArgumentsError: two options name the same file.
    """
    written = {f"--{name}": getattr(args, name) for name in ("html", "json", "record")}
    read = {
        "--images": args.images,
        "--verify": None if args.verify == FOLDERS else args.verify,
        "--token-file": args.token_file,
        **{f"--{name.replace('_', '-')}": os.environ.get(ENVIRONMENT[name]) for name in _PEM_FILES},
    }
    named = [(option, Path(name)) for option, name in (written | read).items() if name]
    for number, (option, path) in enumerate(named):
        for other, other_path in named[number + 1 :]:
            if option in written and _same(path, other_path):  # guard: load-files-apart
                raise ArgumentsError(f"{option} and {other} both name {other_path.absolute()}; expected two files")


def duration_of(args: Namespace) -> int:
    """Seconds of the test, or of each trial of a search."""
    return args.duration or (_TRIAL_S if args.find_peak else _DURATION_S)


def gates_of(args: Namespace) -> Gates:
    """What the test, or each trial of a search, must keep."""
    usual = _MOST_ERRORS_OF_PEAK if args.find_peak else _MOST_ERRORS
    return Gates(args.p99_ms, usual if args.max_error_rate is None else args.max_error_rate)


def _check_comparison(args: Namespace) -> None:
    if len(args.action) != 3 or args.action[0] != "compare":
        raise ArgumentsError(
            f"`inferry load {' '.join(args.action)}` is not understood; expected `inferry load compare A B`"
        )
    refuse_useless(args.given, args.given - set(_OF_COMPARISONS), "a comparison reads two files and sends nothing")


def _check_search(args: Namespace) -> None:
    if args.find_peak and args.p99_ms is None:
        raise ArgumentsError("--find-peak needs --p99-ms: the objective that the peak is to hold")
    if args.find_peak and len(args.rate or ()) > 1:
        raise ArgumentsError("--find-peak takes one --rate: the first to be tried")


def _check_soak(args: Namespace) -> None:
    if args.soak and (args.find_peak or len(args.rate or ()) > 1):
        raise ArgumentsError("--soak holds one load for the whole test; leave out --find-peak, and give one --rate")
    if args.soak and duration_of(args) < LEAST_SOAK_S:
        raise ArgumentsError(f"--soak compares parts of a test; expected a --duration of {LEAST_SOAK_S} s or more")


def _same(one: Path, other: Path) -> bool:
    """Whether two names are one file's, also by links."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))
