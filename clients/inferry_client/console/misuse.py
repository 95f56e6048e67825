"""Options that would do nothing: a command refuses them, so that nobody believes they had an effect."""

from collections.abc import Collection

from inferry_client.errors import InferryError


class MisuseError(InferryError):
    """Arguments that do not go together: the command ends as for any wrong argument."""

    exit_status = 2


def refuse_useless(given: Collection[str], useless: Collection[str], reason: str) -> None:
    """See that none of these options was given.

    Args:
        given: on the command line (`given_options`).
        useless: options that nothing would look at.
        reason: why.

    Raises:
        MisuseError: some were; names them.
    """
    found = sorted(set(given).intersection(useless))
    if found:  # guard: nothing-ignored
        raise MisuseError(f"{' and '.join(found)} would do nothing: {reason}")
