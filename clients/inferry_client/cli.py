"""`inferry`: the command line. Parses, runs one command, turns what goes wrong into one line."""

import argparse
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from inferry_client.batch.options import add_batch
from inferry_client.connecting.addresses import DEFAULT_SERVER
from inferry_client.console.option_types import duration_s, given_options, number, numbers, whole_number
from inferry_client.console.output import complain, say
from inferry_client.console.parsing import Parser
from inferry_client.console.stopping import STOPPED, TERMINATED, ended_by_sigterm
from inferry_client.limits import MAX_SECONDS, MAX_TOP_K
from inferry_proto.extras import how_to_install

_SECURITY = ("tls", "ca", "certificate", "private_key", "server_name")
_FAILED, _INTERRUPTED, _PIPE_CLOSED = 1, 130, 141
_MAX_ROWS = 65_536  # more fit into no message
_MAX_RATE = 1e6  # requests a second; more leave no machine
_MAX_USERS = 10_000  # connections of one process

# What a command may find missing, and the extra that brings it.
_EXTRA_OF = {
    "grpc": "client",
    "tqdm": "client",
    "pyarrow": "batch",
    "onnxruntime": "batch-local",
    "locust": "load",
    "gevent": "load",
    "obstore": "sync",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit status."""
    verbose = False
    try:
        args = build_parser().parse_args(argv)
        args.given = given_options(sys.argv[1:] if argv is None else argv)
        verbose = args.verbose
        if not verbose:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log lines, before it is imported
        return _run(args)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        return _PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, never a traceback unasked
        if _was_interrupted(error):
            return _INTERRUPTED
        if verbose:
            traceback.print_exc()
        complain(f"error: {_describe(error)}")
        return getattr(error, "exit_status", _FAILED)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; nothing heavy is imported for it."""
    parser = Parser(
        prog="inferry",
        description="Talk to an Inferry server.",
        epilog="Exit status: 0 done; 1 something failed, said on stderr; 2 wrong arguments; 130 interrupted; "
        "141 whoever read the output stopped reading.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    parser.add_argument("--verbose", action="store_true", help="show a traceback with an error")
    everywhere = Parser(add_help=False)
    everywhere.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    everywhere.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get("INFERRY_SERVER") or DEFAULT_SERVER,
        help="the server's gRPC address, or several separated by commas ($INFERRY_SERVER, else " + DEFAULT_SERVER + ")",
    )
    _add_security(everywhere)
    everywhere.add_argument(
        "--timeout-s",
        type=number(0.001, MAX_SECONDS),
        default=10.0,
        metavar="S",
        help="of every request (%(default)g)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, module: str, summary: str) -> Parser:
        command: Parser = commands.add_parser(
            name, parents=[everywhere], help=summary, description=f"{summary}.", allow_abbrev=False
        )
        command.set_defaults(module=module)
        return command

    _add_classify(add("classify", "commands.classify", "Print the labels of pictures"))
    _add_json(add("models", "commands.models", "List the server's models, their versions and states"))
    _add_status(add("status", "commands.status", "Say whether the server is ready; exit status 0 only if it is"))
    _add_explain(add("explain", "commands.explain", "Say why requests were late or refused"))
    add_batch(add("batch", "batch.command", "Classify a folder of pictures into Parquet files; resumes"))

    def add_apart(name: str, module: str, summary: str) -> argparse.ArgumentParser:
        """A command that asks no server."""
        command = commands.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)
        command.set_defaults(module=module, token_file=None, **dict.fromkeys(_SECURITY))
        return command

    completion = add_apart("completion", "commands.completion", "Print a script that completes commands and options")
    completion.set_defaults(parser=parser)
    completion.add_argument("shell", choices=("bash", "zsh"), help='use it with eval "$(inferry completion bash)"')
    sync = add_apart("sync", "sync.command", "Copy a model repository out of an object store, whole versions only")
    _add_sync(sync)
    _add_load(add("load", "load.command", "Load-test a model with Locust"))
    return parser


def _add_security(everywhere: argparse.ArgumentParser) -> None:
    everywhere.add_argument(
        "--tls", action="store_const", const="1", help="encrypt, and trust the usual authorities ($INFERRY_TLS=1)"
    )
    for flag, metavar, meaning in (
        ("--ca", "FILE", "encrypt, and trust these authorities only"),
        ("--certificate", "FILE", "the client's certificate"),
        ("--private-key", "FILE", "its key"),
        ("--server-name", "NAME", "the name that the server's certificate has, where it is not the address's"),
    ):
        variable = f"INFERRY_{flag[2:].upper().replace('-', '_')}"
        everywhere.add_argument(flag, metavar=metavar, help=f"{meaning} (${variable})")
    everywhere.add_argument(
        "--token-file", metavar="FILE", help="the bearer token that every request carries ($INFERRY_TOKEN is one)"
    )


@contextmanager
def _security_in_environment(args: argparse.Namespace) -> Iterator[None]:
    """While a command runs, its flags are the variables that mean the same: Locust's processes read them too."""
    given = {f"INFERRY_{name.upper()}": getattr(args, name) for name in _SECURITY if getattr(args, name)}
    if args.token_file:
        given["INFERRY_TOKEN"] = _read_token(Path(args.token_file))
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        InferryError: the file holds none, or what no header can carry.
        OSError: it cannot be read.
    """
    from inferry_client.errors import InferryError

    token = path.read_bytes().strip()
    if not token:
        raise InferryError(f"--token-file {path} is empty; expected a token")
    text = token.decode("ascii", "replace")
    if not (text.isascii() and text.isprintable()):
        raise InferryError(
            f"--token-file {path} holds what a header cannot carry; expected one line of printable ASCII"
        )
    return text


def _add_status(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--watch",
        nargs="?",
        type=number(0.1, 3600),
        const=2.0,
        metavar="S",
        help="show requests, rows, latency and queue, every so many seconds (2), until interrupted",
    )
    _add_json(command)


def _add_explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="", metavar="M", help="every model, if left out")
    command.add_argument("--version", default="", metavar="V", help="a version or label; every one, if left out")
    command.add_argument(
        "--limit", type=whole_number(1, _MAX_ROWS), default=5, metavar="N", help="requests of each kind (%(default)s)"
    )
    _add_json(command)


def _add_classify(command: argparse.ArgumentParser) -> None:
    command.add_argument("images", nargs="+", metavar="IMAGE", help="a JPEG, PNG, WebP or BMP file")
    command.add_argument("--model", metavar="M", help="may be left out where the server has one model ready")
    command.add_argument("--version", default="", metavar="V", help="a version or label (the newest that is ready)")
    command.add_argument(
        "--top-k", type=whole_number(1, MAX_TOP_K), default=1, metavar="K", help="labels a picture (%(default)s)"
    )
    command.add_argument(
        "--accept-variant",
        action="store_true",
        help="let the model's int8 or float16 variant answer where the model has no room; stderr says so",
    )
    _add_json(command)


def _add_sync(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "url", metavar="URL", help="of the repository's folder: s3://BUCKET/PATH, gs://, az://, file://"
    )
    command.add_argument("folder", metavar="DIR", help="the copy, which a server beside it reads")
    command.add_argument(
        "--every-s", type=number(1, 86_400), metavar="S", help="look again every so many seconds, until ended (once)"
    )
    command.add_argument("--delete", action="store_true", help="remove what is gone from the store, after the rest")
    command.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_load(command: Parser) -> None:
    compare = command.add_mode("compare", "Say what differs between two tests; exit status 1 if the second is worse")
    compare.add_argument("files", nargs=2, metavar="FILE", help="written with --json, of the first test and the second")
    compare.add_argument("--verbose", action="store_true", help="show a traceback with an error")
    command.add_argument("action", nargs="*", metavar="compare A B", help="compare two files written with --json")
    command.add_argument("--model", metavar="M", help="may be left out where the server has one model ready")
    command.add_argument("--version", default="", metavar="V", help="a version or label (the newest that is ready)")
    command.add_argument("--duration", type=duration_s, metavar="T", help="like 30s or 5m (30s; 5s a trial of a peak)")
    command.add_argument(
        "--processes", type=whole_number(1, 256), metavar="N", help="that send (by rate or users, up to the cores)"
    )
    _add_what_is_sent(command)
    closed = command.add_argument_group("closed loop: users wait for their answers (Locust)")
    closed.add_argument(
        "--users",
        type=whole_number(1, _MAX_USERS),
        default=32,
        metavar="N",
        help="each sends as soon as answered (%(default)s)",
    )
    closed.add_argument(
        "--spawn-rate", type=number(0.001, _MAX_USERS), metavar="R", help="users started a second (all at once)"
    )
    opened = command.add_argument_group("open loop: requests leave on a schedule, however the server answers")
    opened.add_argument(
        "--rate",
        type=numbers(0.1, _MAX_RATE),
        metavar="R[,R...]",
        help="requests a second; several are steps or a spike, each for an equal part of the time",
    )
    opened.add_argument(
        "--arrivals", choices=("poisson", "constant"), default="poisson", help="at random, or evenly (%(default)s)"
    )
    opened.add_argument("--seed", type=whole_number(0, 2**31), default=0, metavar="N", help="of the schedule (0)")
    opened.add_argument(
        "--find-peak",
        action="store_true",
        help="find the highest rate whose p99 is within --p99-ms; --rate is the first",
    )
    gates = command.add_argument_group("gates: exit status 1 where one is not kept")
    gates.add_argument(
        "--p99-ms",
        type=number(0.001, MAX_SECONDS * 1e3),
        metavar="MS",
        help="the latency objective: p99, and of goodput",
    )
    gates.add_argument(
        "--max-error-rate",
        type=number(0, 1),
        metavar="SHARE",
        help="of requests refused or failed (0; 0.001 for --find-peak)",
    )
    gates.add_argument(
        "--soak", action="store_true", help="the last third of the test must be as good as the first, within a tenth"
    )
    command.add_argument("--html", metavar="FILE", help="write a report with charts")
    command.add_argument("--json", metavar="FILE", help="write the figures")


def _add_what_is_sent(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images", metavar="PATH", help="send this file, or the pictures of this folder, encoded (random contents)"
    )
    command.add_argument(
        "--rows", type=whole_number(1, _MAX_ROWS), default=1, metavar="N", help="pictures or rows a request (1)"
    )
    command.add_argument(
        "--stream",
        action="store_true",
        help="send on bidirectional streams: one of each user; four or more of each process in an open loop",
    )
    command.add_argument(
        "--verify",
        metavar="folders|FILE",
        help="what answers must be: labels by the names of the pictures' folders, or a recording",
    )
    command.add_argument("--record", metavar="FILE", help="keep what the server answers, for --verify")


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _run(args: argparse.Namespace) -> int:
    with _stopped_early(args), _behind_others(args):
        command: Any = import_module(f"inferry_client.{args.module}")
        with _security_in_environment(args):
            status: int = command.run(args)
    return status


def _stopped_early(args: argparse.Namespace) -> AbstractContextManager[None]:
    """What SIGTERM does before the command has imported its own answer to it: what that would do then."""
    if args.command == "batch":
        return ended_by_sigterm(STOPPED, "the job was told to stop; complete parts are kept: run again to go on")
    if args.command == "sync":
        return ended_by_sigterm(0 if args.every_s else TERMINATED)
    return nullcontext()


def _behind_others(args: argparse.Namespace) -> AbstractContextManager[None]:
    """A batch job lets others on this machine go first, from its first import on."""
    if args.command != "batch":
        return nullcontext()
    from inferry_client.batch.priority import give_way, importing_in_turns

    give_way()  # before gRPC starts threads of its own, which run as who starts them does
    return importing_in_turns()


def _was_interrupted(error: BaseException) -> bool:
    """Whether an interrupt became this error on its way, as in a library's extension that was being initialized."""
    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    return any(isinstance(cause, KeyboardInterrupt) for cause in causes)


def _describe(error: Exception) -> str:
    from inferry_client.errors import InferryError

    if isinstance(error, InferryError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = _EXTRA_OF.get(error.name.partition(".")[0])
        if extra:
            return f"this command needs {error.name}, which is not installed: {how_to_install(extra)}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {error}; --verbose shows where"


class _Version(argparse.Action):
    """Prints what is installed; its number is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        say(f"inferry {version('inferry')}")
        parser.exit()
