"""When open streams must be checked again, because the policy may no longer let their callers in."""

from inferry_server.security.access import Access


class Standing:
    """Tells when earlier decisions about callers may no longer be right. One thread calls it; nothing blocks.

    Args:
        access: decides who may call.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._policy = access.policy
        self._asked_at = access.now()

    def has_changed(self) -> bool:
        """Whether the policy was exchanged, or a token has expired, since the last call."""
        policy, since = self._policy, self._asked_at
        self._policy, self._asked_at = self._access.policy, self._access.now()
        return self._policy is not policy or any(since < end <= self._asked_at for end in policy.ends)
