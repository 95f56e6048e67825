"""What the command line itself refuses."""

from inferry_client.errors import InferryError


class CommandError(InferryError):
    """A command that cannot be carried out; one line that says why and what to do."""
