"""Why a load test cannot run."""

from inferry_client.errors import InferryError


class LoadError(InferryError):
    """A load test that cannot begin or that failed; one line that says why and what to do."""


class ArgumentsError(LoadError):
    """Arguments that do not go together: the command ends as for any wrong argument."""

    exit_status = 2
