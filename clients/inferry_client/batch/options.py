"""The arguments of `inferry batch`; nothing heavy is imported for them."""

import argparse
import re

from inferry_client.batch.settings import DEFAULT_MAX_ERRORS, DEFAULT_MAX_FILE_BYTES
from inferry_client.console.option_types import number, whole_number
from inferry_client.console.parsing import Parser

_MAX_PICTURES = 1_000_000_000  # far above any model's limit and any folder
_MAX_WORKERS = 1024  # threads
_MAX_DECODERS = 256  # processes
_MAX_TOP_K = 100_000
_MAX_BYTES = 1 << 40
_MAX_GRACE_S = 3600.0


def add_batch(command: Parser) -> None:
    """Add them."""
    command.epilog = "`inferry batch merge` makes one job of its shards; `inferry batch merge --help` has more."
    _describe_merge(command.add_mode("merge", "See that the shards of a job are whole and complete, and make it one"))
    command.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="folders, .tar .tar.gz .zip archives, .parquet .csv tables, .txt lists, IDX files, pictures, patterns; "
        "s3:// gs:// az:// and http(s):// addresses of such",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="where results and the job's plan go; s3://… too")
    command.add_argument("--model", metavar="M", help="may be left out where the server has one model ready")
    command.add_argument(
        "--version", default="", metavar="V", help="a version or label; one version answers the whole job"
    )
    command.add_argument(
        "--onnx", metavar="FOLDER", help="no server: compute here with this version, like models/mnist/3"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    _add_input(command)
    _add_output(command)
    _add_pace(command)


def _describe_merge(merge: argparse.ArgumentParser) -> None:
    merge.add_argument(
        "shards", nargs="*", metavar="SHARD", help="folders or addresses of shards (shard-* in DIR); none is changed"
    )
    merge.add_argument("--out", required=True, metavar="DIR", help="where the whole job goes; s3://… too")
    merge.add_argument("--verbose", action="store_true", help="show a traceback with an error")


def _add_input(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--recursive", action=argparse.BooleanOptionalAction, default=True, help="look into subfolders too (yes)"
    )
    command.add_argument("--follow-links", action="store_true", help="look into links to folders too")
    command.add_argument(
        "--max-file-bytes",
        type=whole_number(1, _MAX_BYTES),
        default=DEFAULT_MAX_FILE_BYTES,
        metavar="N",
        help="a picture with more is an error (%(default)s)",
    )
    command.add_argument("--column", metavar="C", help="of a table that holds the pictures: bytes or paths")
    command.add_argument(
        "--id-column", metavar="C", help="of a table that holds the ids (the path, or the row's number)"
    )
    command.add_argument(
        "--incremental", action="store_true", help="classify what is new in the input since the job in DIR"
    )
    command.add_argument("--overwrite", action="store_true", help="begin anew where DIR holds another job")


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format", choices=("parquet", "csv", "jsonl"), default="parquet", help="of the part files (%(default)s)"
    )
    command.add_argument(
        "--top-k", type=whole_number(1, _MAX_TOP_K), default=1, metavar="K", help="labels a picture (%(default)s)"
    )
    command.add_argument("--all-probabilities", action="store_true", help="keep every class's probability too")
    command.add_argument(
        "--part-size", type=whole_number(1, _MAX_PICTURES), metavar="N", help="pictures a part file (1024)"
    )
    command.add_argument(
        "--max-errors",
        type=number_or_share,
        default=DEFAULT_MAX_ERRORS,
        metavar="N|P%",
        help="end the job once more pictures than that could not be classified (10%%)",
    )


def _add_pace(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--batch-size",
        type=whole_number(1, _MAX_PICTURES),
        metavar="N",
        help="pictures a request (32, up to 256 where they are small)",
    )
    command.add_argument(
        "--workers", type=whole_number(1, _MAX_WORKERS), metavar="N", help="requests under way at a time (by cores)"
    )
    command.add_argument(
        "--decoders",
        type=whole_number(0, _MAX_DECODERS),
        metavar="N",
        help="processes that decode; 0: the threads that send (by cores)",
    )
    command.add_argument(
        "--grace-s",
        type=number(0.0, _MAX_GRACE_S),
        default=20.0,
        metavar="S",
        help="how long it may finish the part it is at after SIGTERM (%(default)g)",
    )
    command.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="do every Nth part, from I = 0; N alone takes I from $JOB_COMPLETION_INDEX. Then: inferry batch merge",
    )
    command.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="who decodes and classifies: this machine, or the Ray cluster of $RAY_ADDRESS (%(default)s)",
    )
    command.add_argument("--report", action="store_true", help="say where the time went, and what to change")
    command.add_argument(
        "--json-progress", action="store_true", help="progress as lines of JSON on stderr, for programs"
    )


def number_or_share(text: str) -> int | float:
    """Reads `100` as so many, `5%` as a share from 0 to 1."""
    match = re.fullmatch(r"(\d{1,10})(?:(\.\d{1,6})?%)?", text, re.ASCII)
    if match and not text.endswith("%"):
        return int(text)
    if match and float(text[:-1]) <= 100:
        return float(text[:-1]) / 100
    raise argparse.ArgumentTypeError(f"{text[:40]!r} came; expected a number of pictures, or a share like 5%")
