"""Why a job cannot run."""

from inferry_client.errors import InferryError


class JobError(InferryError):
    """A job that cannot begin or go on; one line that says why and what to do."""
