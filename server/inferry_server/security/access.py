"""The decision: may this caller call this method? The same for both gRPC transports and for HTTP."""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from inferry_server.errors import PermissionDeniedError, UnauthenticatedError
from inferry_server.security.policy import METRICS, Caller, Policy
from inferry_server.security.roles import Role

logger = logging.getLogger(__name__)

Metadata = Sequence[tuple[str, str | bytes]]
Names = Callable[[], Iterable[str]]
"""What the caller's verified certificate says (`DNS:name`); asked only where a policy names certificates."""

_SCHEME = "bearer "
_SCHEME_LENGTH = len(_SCHEME)
_ADMIN = Role.ADMIN  # of an enumeration even that takes time


class Access:
    """Decides by a policy, which may be exchanged at any time. Thread-safe; nothing blocks.

    Args:
        policy: to begin with.
        wall_clock: seconds since the epoch, which tokens expire by.

    """

    def __init__(self, policy: Policy, wall_clock: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._wall_clock = wall_clock

    @property
    def policy(self) -> Policy:
        """The one that decides now."""
        return self._policy

    def now(self) -> float:
        """The time by which tokens expire, in seconds since the epoch."""
        return self._wall_clock()

    def exchange(self, policy: Policy) -> None:
        """Decide by another policy from now on."""
        self._policy = policy

    def check(self, path: str, metadata: Metadata, names: Names, *, again: bool = False) -> None:
        """Return if the caller may call a method.

        Args:
            path: of the method.
            metadata: of the call; a token stands in `authorization`.
            names: of the caller's certificate.
            again: whether the call was let in before, and stands in the log.

        Raises:
            UnauthenticatedError: the caller shows nothing, or a token that is not known.
            PermissionDeniedError: it may do other things, not this.
        """
        policy = self._policy
        role = policy.methods.get(path, _ADMIN)
        if role is None:
            return
        token = None
        for key, value in metadata:
            if key == "authorization":
                token = _bearer_token(value, token)
        # First what costs least: most calls have a token that is right. One that is wrong is never let through.
        caller = None if token is None else self._caller_of(policy, token)
        if caller is not None and role in caller.roles:
            if role is _ADMIN and not again:
                logger.info("caller %s: %s", caller.name, path)
        elif role not in policy.anonymous:
            self._require_certificate(policy, role, path, caller, names, again)

    def check_metrics(self, metadata: Metadata, names: Names) -> None:
        """As `check`, for the metrics page."""
        self.check(METRICS, metadata, names)

    def _require_certificate(
        self, policy: Policy, role: Role, path: str, caller: Caller | None, names: Names, again: bool
    ) -> None:
        """As `check`, for a caller whose token does not have the role."""
        callers = [] if caller is None else [caller]
        known = policy.certificates
        if known:  # guard: certificate-roles
            for name in known.keys() & names():  # either may be a thousand
                one = known[name]
                if role in one.roles:
                    if role is _ADMIN and not again:
                        logger.info("caller %s: %s", one.name, path)
                    return
                callers.append(one)
        if not callers:
            raise UnauthenticatedError(
                f"{path} takes callers with the role {role}; expected a bearer token in the metadata authorization, or "
                "a client certificate that the access policy names"
            )
        raise PermissionDeniedError(path, role=role, callers=sorted({one.name for one in callers}))

    def _caller_of(self, policy: Policy, token: str) -> Caller:
        """Whose token it is.

        The token itself is compared with nothing. What the table is asked for is its digest, of which a caller who
        does not know the token cannot choose a single bit; the last comparison takes as long whatever differs.
        """
        try:
            digest = hashlib.sha256(token.encode("ascii")).digest()  # guard: token-ascii
        except UnicodeEncodeError:  # over HTTP and over gRPC it would be other text
            raise UnauthenticatedError(
                "the bearer token has a character that is not ASCII; expected printable ASCII, as base64 writes it"
            ) from None
        known = policy.tokens.get(digest)
        if known is not None and hmac.compare_digest(known.digest, digest):
            caller = known.caller
            if caller.expires is None or self._wall_clock() < caller.expires:  # guard: token-expires
                return caller
        raise UnauthenticatedError("the bearer token is not known here, or has expired")


def _bearer_token(value: str | bytes, before: str | None) -> str | None:
    """The token that a caller shows, if it was not shown `before`; other schemes are for others."""
    text = value if isinstance(value, str) else value.decode("latin-1")
    if text[:_SCHEME_LENGTH].lower() != _SCHEME:
        return before
    if before is not None:  # guard: one-token
        raise UnauthenticatedError("several bearer tokens came; expected one")
    return text[_SCHEME_LENGTH:].strip(" \t")
