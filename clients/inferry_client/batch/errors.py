"""Why a job cannot run, or ended early."""

from inferry_client.errors import InferryError
from inferry_proto.foreign_errors import first_line


class JobError(InferryError):
    """A job that cannot begin or go on; one line that says why and what to do."""


class InputError(JobError):
    """An input that cannot be read, or not as what its name says; among others it is one error of many."""


class StoppedError(JobError):
    """A job that was told to stop: complete parts are kept, and run again it goes on."""


class StopSignal(BaseException):
    """What a signal's handler raises, wherever the job is.

    It is no Exception: whoever reads damaged files would take it for damage.
    """


def reason_of(error: Exception) -> str:
    """What an error says, in one line and without the number and the path that the system adds."""
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)
