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
"""The names in the caller's verified certificate (`DNS:name`); called only where a policy names certificates."""

_SCHEME = "bearer "
_SCHEME_LENGTH = len(_SCHEME)
_ADMIN = Role.ADMIN  # looking up a member of an enumeration takes time


class Access:
    """Decides by a policy, which any thread may exchange at any time. Thread-safe; no method blocks.

    Args:
        policy: to begin with.
        wall_clock: tells seconds since the epoch, by which tokens expire.
    """

    def __init__(self, policy: Policy, wall_clock: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._wall_clock = wall_clock

    @property
    def policy(self) -> Policy:
        """The policy that decides now."""
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
            again: whether the call was let in before, so that the log has it already.

        Raises:
            UnauthenticatedError: the caller shows no token and no certificate that the policy knows, or a wrong token.
            PermissionDeniedError: the policy knows the caller, and gives it other roles only.
        """
        policy = self._policy
        role = policy.methods.get(path, _ADMIN)
        if role is None:
            return
        token = None
        for key, value in metadata:
            if key == "authorization":
                token = _bearer_token(value, token)
        # The token first: that costs least, and most calls have a right one. A wrong one refuses the call in any case.
        caller = None if token is None else self._caller_of(policy, token)
        if caller is not None and role in caller.roles:
            if role is _ADMIN and not again:
                logger.info("caller %s: %s", caller.name, path)
        elif role not in policy.anonymous:
            self._require_certificate(policy, role, path, caller, names, again)

    def check_metrics(self, metadata: Metadata, names: Names) -> None:
        """Return if the caller may read the metrics page; arguments and errors are those of `check`."""
        self.check(METRICS, metadata, names)

    def _require_certificate(
        self, policy: Policy, role: Role, path: str, caller: Caller | None, names: Names, again: bool
    ) -> None:
        """Return if a certificate gives the caller the role that its token does not; errors are those of `check`."""
        callers = [] if caller is None else [caller]
        known = policy.certificates
        if known:  # guard: certificate-roles
            for name in known.keys() & names():  # each of the two may have a thousand names
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
        """The caller whose token it is.

        The token itself is never compared. Its digest is looked up in a table: a caller who does not know a token
        cannot choose any bit of its digest, so the time of the look-up tells nothing. The last comparison takes equally
        long whatever differs.

        Raises:
            UnauthenticatedError: the policy does not know the token, or it has expired.
        """
        try:
            digest = hashlib.sha256(token.encode("ascii")).digest()  # guard: token-ascii
        except UnicodeEncodeError:  # HTTP and gRPC would read its bytes as different text
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
    """The bearer token in a value of `authorization`, or the one `before`, where the value has another scheme.

    Raises:
        UnauthenticatedError: both are there.
    """
    text = value if isinstance(value, str) else value.decode("latin-1")
    if text[:_SCHEME_LENGTH].lower() != _SCHEME:
        return before
    if before is not None:  # guard: one-token
        raise UnauthenticatedError("several bearer tokens came; expected one")
    return text[_SCHEME_LENGTH:].strip(" \t")
