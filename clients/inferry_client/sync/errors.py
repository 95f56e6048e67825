"""What can go wrong with a copy."""

from inferry_client.errors import InferryError


class SyncError(InferryError):
    """The store cannot be read, or the copy cannot be written."""
