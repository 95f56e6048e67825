"""When callers that were let in are asked about again: their streams stay open for long."""

from inferry_server.security.access import Access


class Standing:
    """Tells when what was decided about callers may no longer hold. One thread asks; nothing blocks.

    Args:
        access: decides who may call.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._policy = access.policy
        self._asked_at = access.now()

    def has_changed(self) -> bool:
        """Whether another policy decides than when this was asked last, or a token has expired since."""
        policy, since = self._policy, self._asked_at
        self._policy, self._asked_at = self._access.policy, self._access.now()
        return self._policy is not policy or any(since < end <= self._asked_at for end in policy.ends)
