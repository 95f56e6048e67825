"""Where a data set's files are: a folder that was named, the environment, the cache, the network."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inferry_trainer.datasets.idx import describe_start, file_md5
from inferry_trainer.errors import DatasetError

DATA_VARIABLE = "INFERRY_DATA"
_NETWORK_TIMEOUT_S = 30.0  # without a byte


@dataclass(frozen=True)
class RemoteFiles:
    """Files that are the same wherever they lie.

    Attributes:
        dataset: as on the command line; also the name of the folder that holds the files.
        md5_of: checksum by file name.
        mirrors: addresses of folders that hold the files, tried in order.
        bytes_about: what a download amounts to.
    """

    dataset: str
    md5_of: Mapping[str, str]
    mirrors: tuple[str, ...]
    bytes_about: str


def cache_folder(dataset: str) -> Path:
    """Where downloads are kept: inside Keras' own cache (`$KERAS_HOME`, or `~/.keras`)."""
    home = os.environ.get("KERAS_HOME") or "~/.keras"
    return Path(home).expanduser() / "datasets" / "inferry" / dataset


def locate_files(files: RemoteFiles, *, data_dir: Path | None) -> Path:
    """The folder that holds the files, each with the right checksum; downloaded where nothing else has them.

    The order is `data_dir`, `$INFERRY_DATA`, the cache, a download into the cache. Both folders
    may hold the files themselves or a folder named after the data set. A folder named by
    `data_dir` must have them: falling back silently would train on other data than was asked for.

    Raises:
        DatasetError: a file is not what it should be, or there is none and no mirror gave it.
    """
    looked_in: list[str] = []
    for setting, folder in (("--data-dir", data_dir), (f"${DATA_VARIABLE}", folder_from_environment())):
        if folder is None:
            looked_in.append(f"{setting} (not set)")
            continue
        for candidate in (folder / files.dataset, folder):
            if any((candidate / name).exists() for name in files.md5_of):
                _check(candidate, files)
                return candidate
        looked_in.append(f"{setting} ({folder})")
        if setting == "--data-dir":
            raise DatasetError(_not_there(files, folder))
    cache = cache_folder(files.dataset)
    if not all((cache / name).exists() and file_md5(cache / name) == md5 for name, md5 in files.md5_of.items()):
        looked_in.append(f"the cache ({cache})")
        _download(files, cache, looked_in)
    return cache


def folder_from_environment() -> Path | None:
    """What `$INFERRY_DATA` names, if it is set."""
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).expanduser() if value else None


def _not_there(files: RemoteFiles, folder: Path) -> str:
    reason = "holds none of its files" if folder.is_dir() else "is not a folder"
    return (
        f"{files.dataset} was not found: --data-dir {folder} {reason}; expected {', '.join(files.md5_of)} in it or in "
        f"its folder {files.dataset}/. Without --data-dir, ${DATA_VARIABLE}, the cache "
        f"({cache_folder(files.dataset)}) and a download are tried, in this order"
    )


def _check(folder: Path, files: RemoteFiles) -> None:
    """Raises DatasetError for the first file that is missing or is not the expected one."""
    for name, expected in files.md5_of.items():
        path = folder / name
        if not path.is_file():
            raise DatasetError(f"{path} is missing; {folder} holds only some of the files of {files.dataset}")
        actual = file_md5(path)
        if actual != expected:
            looks = describe_start(path)
            raise DatasetError(
                f"{path} is not {files.dataset}'s {name}: expected MD5 {expected}, {actual} came"
                + (f"; {looks}" if looks else "")
                + f"; download it again, or name the folder of {files.dataset}'s files with --data-dir"
            )


def _download(files: RemoteFiles, cache: Path, looked_in: list[str]) -> None:
    print(f"downloading {files.dataset} ({files.bytes_about}) into {cache}", flush=True)
    for name, md5 in files.md5_of.items():
        failures: list[str] = []
        for mirror in files.mirrors:
            try:
                _fetch(f"{mirror}/{name}", cache / name, md5=md5)
                break
            except Exception as error:  # noqa: BLE001 - get_file raises plain Exception when an address fails
                (cache / name).unlink(missing_ok=True)
                failures.append(f"{mirror}: {error}")
        else:
            raise DatasetError(
                f"{files.dataset} was not found and could not be downloaded. Looked in {', '.join(looked_in)}; "
                f"then tried {'; '.join(failures)}. Put {', '.join(files.md5_of)} into a folder and name it with "
                f"--data-dir or ${DATA_VARIABLE}"
            )


def _fetch(url: str, path: Path, *, md5: str) -> None:
    from keras.utils import get_file  # brings TensorFlow with it

    path.parent.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_TIMEOUT_S)  # get_file itself would wait for ever
    try:
        saved = get_file(path.name, url, file_hash=md5, hash_algorithm="md5", cache_dir=path.parent, cache_subdir="")
    finally:
        socket.setdefaulttimeout(before)
    if Path(saved) != path:  # get_file's way out of a folder it may not write to
        raise PermissionError(f"{path.parent} cannot be written to")
