"""Files that are read again when they change: the access policy, certificates and their keys.

Contents are compared, not times: Kubernetes exchanges a symbolic link, others write in place, and times of files are
coarse.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

Contents = Mapping[Path, bytes]

_LOOK_S = 1.0
_CLOSE_S = 5.0


class WatchedFiles:
    """Files that belong together, as a certificate and its key do. Not thread-safe: one thread calls `look`.

    New contents are applied when two looks, one after the other, have found the same: the first may have come while
    somebody was writing. Contents that cannot be applied are reported once, and what was applied before stays in
    effect. Each further look tries them again: memory or descriptors may have been short, and an authority that was
    removed must not stay trusted.

    Args:
        what: name of these files in the log and in metrics.
        paths: of the files.
        applied: what they held when they were applied last.
        apply: takes new contents; raises for those that cannot be used.
        told: called with `reloaded` or `failed`.
    """

    def __init__(
        self,
        what: str,
        paths: Sequence[Path],
        applied: Contents,
        apply: Callable[[Contents], object],
        told: Callable[[str, str], object] = lambda *_: None,
    ) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._settled: Contents | None = applied
        self._seen: Contents | None = applied
        self._failed: Contents | None = None
        self._apply = apply
        self._told = told
        self._unreadable = False

    def look(self) -> None:
        """See whether the files have changed."""
        contents = self._read()
        if contents is None:
            return
        seen, self._seen = self._seen, contents
        if contents == self._settled or contents != seen:  # guard: reload-settled
            return
        try:
            self._apply(contents)
        except Exception as error:  # noqa: BLE001 - what was applied before stays in effect
            if contents == self._failed:
                return
            self._settled, self._failed = None, contents  # guard: reload-tried-again
            logger.error(
                "%s has changed and cannot be used, what was read before stays in effect: %s", self._what, error
            )
            self._told(self._what, "failed")
        else:
            self._settled, self._failed = contents, None
            logger.info("%s has changed and was read again", self._what)
            self._told(self._what, "reloaded")

    def _read(self) -> Contents | None:
        try:
            contents = read_files(self._paths)
        except OSError as error:
            if not self._unreadable:
                logger.error("%s cannot be read, what was read before stays in effect: %s", self._what, error)
                self._told(self._what, "failed")
            self._unreadable = True
            return None
        self._unreadable = False
        return contents


class FileWatcher:
    """Looks at files once a second, on a thread of its own. `start` and `close` are called by one thread."""

    def __init__(self) -> None:
        self._watched: list[WatchedFiles] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="file-watcher", daemon=True)

    def add(self, watched: WatchedFiles) -> None:
        """Watch further files. To be called before `start`."""
        self._watched.append(watched)

    def start(self) -> None:
        """Start the thread, if there are files to watch."""
        if self._watched:
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def look(self) -> None:
        """See whether any of the files has changed."""
        for watched in self._watched:
            watched.look()

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_S):
            self.look()


def read_files(paths: Sequence[Path]) -> Contents:
    """What files hold, all of them.

    Raises:
        OSError: one cannot be read.
    """
    return {path: path.read_bytes() for path in paths}
