"""Why a job cannot run, or ended early."""

from inferry_client.errors import InferryError


class JobError(InferryError):
    """A job that cannot begin or go on; one line that says why and what to do."""


class StoppedError(JobError):
    """A job that was told to stop: complete parts are kept, and run again it goes on."""
