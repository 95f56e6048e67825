"""Which arguments of `inferry batch` go together. One that would do nothing is refused, not ignored."""

import fnmatch
import glob
import os
from argparse import Namespace
from pathlib import Path

from inferry_client.batch.addresses import is_address
from inferry_client.batch.places import is_same_place
from inferry_client.console.misuse import MisuseError, refuse_useless

_OF_MERGE = {"--out", "--verbose"}
_OF_SERVERS = (
    "--server", "--model", "--version", "--timeout-s", "--tls", "--ca", "--certificate", "--private-key",
    "--server-name", "--token-file",
)  # fmt: skip
_OF_TABLES = ("--column", "--id-column")
_OF_FOLDERS = ("--recursive", "--no-recursive")
_OF_LOCAL_FOLDERS = ("--follow-links",)
_TABLE_SUFFIXES = (".parquet", ".csv")
_RESULTS = ("part-00000.parquet", "part-00000.csv", "part-00000.jsonl", "errors.csv", "_plan.json")


def is_merge(args: Namespace) -> bool:
    """Whether shards are to be merged; a folder of pictures that is called so is given as `./merge`."""
    return bool(args.inputs[0] == "merge")


def check_arguments(args: Namespace) -> None:
    """See that every option has something to act on.

    Raises:
        MisuseError: one has not.
    """
    given = args.given
    if not args.out:
        raise MisuseError("--out is empty; expected a folder for the results, or an address")
    if is_merge(args):
        refuse_useless(given, given - _OF_MERGE, "a merge puts the parts of shards together as they are")
        return
    if args.onnx is not None:
        refuse_useless(given, _OF_SERVERS, "with --onnx this machine computes with that version, and asks no server")
    if args.engine == "ray":
        refuse_useless(given, ("--decoders",), "on Ray tasks decode, as many as the cluster has cores for")
    if args.incremental and args.overwrite:
        raise MisuseError("--incremental and --overwrite exclude each other: one keeps what is there, one does not")
    if not any(map(_may_be_table, args.inputs)):
        refuse_useless(given, _OF_TABLES, f"no input is a table ({', '.join(_TABLE_SUFFIXES)})")
    for text in args.inputs:
        if is_same_place(text, args.out):
            raise MisuseError(f"--out {args.out} is an input too; expected a folder of its own for the results")
        if any(_matches(text, f"{args.out}/{name}") for name in _RESULTS):
            raise MisuseError(
                f"{text} also means what a job writes into --out {args.out}; expected results apart, or a pattern like "
                "'*.png'"
            )
    folders = list(filter(_may_be_folder, args.inputs))
    if not folders:
        refuse_useless(given, _OF_FOLDERS, "no input is a folder")
    if all(map(is_address, folders)):
        refuse_useless(given, _OF_LOCAL_FOLDERS, "no input is a folder of a file system, where links are")


def _matches(pattern: str, path: str) -> bool:
    """Whether a pattern means a file of this path, which need not be there."""
    if is_address(pattern) or is_address(path):
        return glob.has_magic(pattern) and fnmatch.fnmatchcase(path, pattern)
    if not glob.has_magic(pattern) or Path(pattern).exists():
        return False
    wanted, parts = Path(os.path.abspath(pattern)).parts, Path(os.path.abspath(path)).parts  # noqa: PTH100 - no links
    if "**" in wanted:
        before = wanted.index("**")
        return parts[:before] == wanted[:before] and fnmatch.fnmatchcase(parts[-1], wanted[-1])
    return len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _may_be_table(text: str) -> bool:
    return text.lower().endswith(_TABLE_SUFFIXES) or (glob.has_magic(text) and text[-1] in "*?]")


def _may_be_folder(text: str) -> bool:
    return is_address(text) or glob.has_magic(text) or not Path(text).is_file()
