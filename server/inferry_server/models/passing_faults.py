"""Which failed loads are the machine's fault, and may succeed later with the same files."""

import errno
import shutil

_OF_THE_MACHINE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.ESTALE)
)


def may_pass(error: BaseException | None) -> bool:
    """Whether an error, or a cause of it, says that memory, descriptors or disk space were short, or a disk failed.

    `shutil.Error` is one too: it has the errors of many files as text, and comes from copying what could be listed.
    """
    while error is not None:
        if isinstance(error, shutil.Error) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE):
            return True
        error = error.__cause__
    return False
