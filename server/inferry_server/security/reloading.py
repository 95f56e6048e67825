"""The access policy and the files of TLS: read at the start, and again whenever they change."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from inferry_server.errors import StartError
from inferry_server.security.access import Access
from inferry_server.security.certificate_dates import earliest_end
from inferry_server.security.policy import Policy, parse_policy
from inferry_server.security.watching import Contents, FileWatcher, WatchedFiles, read_files

Told = Callable[[str, str], object]
"""Called with what was read again, and `reloaded` or `failed`."""


class Exchangeable(Protocol):
    """TLS of a port, whose files may be exchanged."""

    @property
    def paths(self) -> Sequence[Path]:
        """Of the files."""

    @property
    def contents(self) -> Contents:
        """What the files held when they were read first."""

    def apply(self, contents: Contents) -> None:
        """Use what the files hold now; raises for what cannot be used."""


def watched_access(watcher: FileWatcher, path: Path, *, check: Callable[[Policy], object], told: Told) -> Access:
    """Decides by a policy file, which is read again when it changes.

    Args:
        watcher: looks whether the file has changed.
        path: of the file.
        check: raises for a policy that this server cannot keep.
        told: of every reading after the first.

    Raises:
        StartError: the file cannot be read, or holds no policy that can be kept.
    """

    def read(contents: Contents) -> Policy:
        policy = parse_policy(contents[path])
        check(policy)
        return policy

    try:
        contents = read_files([path])
    except OSError as error:
        raise StartError(f"setting access_policy: {path} cannot be read ({error.strerror})") from error
    access = Access(read(contents))
    watcher.add(WatchedFiles("access policy", [path], contents, lambda new: access.exchange(read(new)), told))
    return access


def watch_tls(
    watcher: FileWatcher,
    tls: Exchangeable,
    *,
    certificates: Mapping[str, Path | None],
    applied: Callable[[Contents], object],
    ends: Callable[[str, float], object],
    told: Told,
) -> None:
    """Have new connections use what the TLS files hold, once the watcher has seen a change.

    Args:
        watcher: looks whether the files have changed.
        tls: of the port that uses new files first.
        certificates: those files that hold certificates, by the name under which their ends are told.
        applied: called with new contents after `tls` has taken them, so that other ports follow.
        ends: called with a name of `certificates` and when the first certificate in the file expires, in seconds since
            the epoch.
        told: of every reading after the first.
    """

    def tell_ends(contents: Contents) -> None:
        for name, path in certificates.items():
            end = None if path is None else earliest_end(contents[path])
            if end is not None:
                ends(name, end)

    def apply(contents: Contents) -> None:
        tls.apply(contents)
        applied(contents)
        tell_ends(contents)

    tell_ends(tls.contents)
    watcher.add(WatchedFiles("TLS files", tls.paths, tls.contents, apply, told))
