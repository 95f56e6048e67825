"""The policy file: which tokens and certificates belong to which caller, and what that caller may do. Pure.

anonymous = []          # roles of callers that show neither token nor certificate
reflection = "read"     # who may list the methods: a role, or "open"
metrics = "open"        # who may read /metrics

[callers.batch]
roles = ["infer"]
tokens_sha256 = ["9f86..."]                # printf %s "$TOKEN" | sha256sum
expires = 2027-01-01T00:00:00Z             # of its tokens; optional

[callers.operators]
roles = ["read", "admin"]
certificates = ["URI:spiffe://prod/ops", "CN:ops"]
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from inferry_server.errors import StartError
from inferry_server.security.certificate_names import canonical_ip
from inferry_server.security.roles import REFLECTION, ROLES, Role

LARGEST_POLICY = 1 << 20  # bytes
METRICS = "/metrics"
"""The path of the metrics page; no gRPC method has it."""
NAME_KINDS = ("subject", "CN", "DNS", "URI", "email", "IP")
"""What a policy may name of a client's certificate: its subject as RFC 2253 writes it, or one of its names."""

_KEYS = {"anonymous", "reflection", "metrics", "callers"}
_CALLER_KEYS = {"roles", "tokens_sha256", "expires", "certificates"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGEST_OF_NOTHING = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Caller:
    """Who may call.

    Attributes:
        name: for messages and the log.
        roles: what it may do.
        expires: when its tokens end, in seconds since the epoch; None: never.
    """

    name: str
    roles: frozenset[Role]
    expires: float | None = None


@dataclass(frozen=True)
class Token:
    """What is known of a token: the SHA-256 digest of it, 32 bytes, and whose it is."""

    digest: bytes
    caller: Caller


@dataclass(frozen=True)
class Policy:
    """Who may do what.

    Attributes:
        anonymous: what everybody may do.
        methods: the role that a caller needs for each method's path, and for `METRICS`; None: it needs none. For any
            other path it needs `admin`.
        tokens: by their digests.
        certificates: callers by what their certificates say, `DNS:name`.
        ends: when tokens expire, in seconds since the epoch; tokens that never do are left out.
        text: of the policy file.
    """

    anonymous: frozenset[Role] = frozenset()
    methods: Mapping[str, Role | None] = field(default_factory=dict)
    tokens: Mapping[bytes, Token] = field(default_factory=dict)
    certificates: Mapping[str, Caller] = field(default_factory=dict)
    ends: frozenset[float] = frozenset()
    text: bytes = b""

    @property
    def metrics(self) -> Role | None:
        """The role that a caller needs for the metrics page; None: it needs none."""
        return self.methods.get(METRICS)


def parse_policy(text: bytes) -> Policy:
    """The policy that a file holds.

    Raises:
        StartError: names the entry, and what was expected. No message repeats a value: it may be a token in a wrong
            place.
    """
    if len(text) > LARGEST_POLICY:
        raise StartError(f"access policy: {len(text)} bytes; expected at most {LARGEST_POLICY}")
    try:
        table = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200]
        raise StartError(f"access policy: the file is not TOML: {reason}") from None
    _refuse_unknown(table, _KEYS, "the file")
    tokens: dict[bytes, Token] = {}
    certificates: dict[str, Caller] = {}
    callers = table.get("callers", {})
    if not isinstance(callers, dict):
        raise StartError("access policy: callers must be tables, [callers.NAME]")
    for name, entry in callers.items():
        _read_caller(name, entry, tokens, certificates)
    return Policy(
        anonymous=_roles(table.get("anonymous", []), "anonymous"),
        methods=ROLES
        | dict.fromkeys(REFLECTION, _role_or_open(table.get("reflection", "read"), "reflection"))
        | {METRICS: _role_or_open(table.get("metrics", "open"), "metrics")},
        tokens=tokens,
        certificates=certificates,
        ends=frozenset(one.caller.expires for one in tokens.values() if one.caller.expires is not None),
        text=text,
    )


def _read_caller(name: str, entry: Any, tokens: dict[bytes, Token], certificates: dict[str, Caller]) -> None:
    where = f"caller {name!r}"
    if not isinstance(entry, dict):
        raise StartError(f"access policy: {where} must be a table, [callers.{name}]")
    _refuse_unknown(entry, _CALLER_KEYS, where)
    caller = Caller(name, _roles(entry.get("roles"), f"{where}: roles"), _moment(entry.get("expires"), where))
    digests = _texts(entry.get("tokens_sha256", []), f"{where}: tokens_sha256")
    names = _texts(entry.get("certificates", []), f"{where}: certificates")
    if not digests and not names:
        raise StartError(f"access policy: {where} has neither tokens_sha256 nor certificates; nobody can be it")
    if caller.expires is not None and not digests:
        raise StartError(
            f"access policy: {where}: expires is of tokens, and it has none; certificates end by themselves"
        )
    for number, digest in enumerate(digests, 1):
        if not _DIGEST.fullmatch(digest):
            raise StartError(
                f"access policy: {where}: entry {number} of tokens_sha256 is not 64 hexadecimal digits; "
                'expected what printf %s "$TOKEN" | sha256sum prints'
            )
        if digest == _DIGEST_OF_NOTHING:  # guard: policy-no-empty-token
            raise StartError(
                f"access policy: {where}: entry {number} of tokens_sha256 is the digest of an empty text, which "
                "everybody knows; was TOKEN set?"
            )
        token = Token(bytes.fromhex(digest), caller)
        other = tokens.setdefault(token.digest, token).caller
        _refuse_shared(caller, other, f"entry {number} of tokens_sha256")
    for number, shown in enumerate(names, 1):
        kind, _, value = shown.partition(":")
        if kind not in NAME_KINDS or not value:
            raise StartError(
                f"access policy: {where}: entry {number} of certificates is not KIND:NAME; "
                f"kinds are {', '.join(NAME_KINDS)}"
            )
        known = f"IP:{_ip(value, where, number)}" if kind == "IP" else shown
        _refuse_shared(caller, certificates.setdefault(known, caller), f"certificate {shown!r}")


def _ip(value: str, where: str, number: int) -> str:
    try:
        return canonical_ip(value)  # guard: policy-ip
    except ValueError:
        raise StartError(
            f"access policy: {where}: entry {number} of certificates is no IP address; expected one whole address, as "
            "IP:192.0.2.1 or IP:2001:db8::1"
        ) from None


def _refuse_shared(caller: Caller, other: Caller, what: str) -> None:
    if other is not caller:  # guard: policy-one-caller
        raise StartError(f"access policy: {what} belongs to both callers {other.name!r} and {caller.name!r}")


def _roles(value: Any, where: str) -> frozenset[Role]:
    return frozenset(_role(text, where) for text in _texts(value, where))


def _role_or_open(value: Any, where: str) -> Role | None:
    return None if value == "open" else _role(value, where, more=", open")


def _role(value: Any, where: str, more: str = "") -> Role:
    try:
        return Role(value)
    except ValueError:
        known = ", ".join(role.value for role in Role)
        raise StartError(f"access policy: {where}: that is no role; expected {known}{more}") from None


def _texts(value: Any, where: str) -> list[str]:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise StartError(f"access policy: {where} must be a list of texts")


def _moment(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise StartError(f"access policy: {where}: expires must be a date with time, 2027-01-01T00:00:00Z")
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _refuse_unknown(table: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(table.keys() - known)
    if unknown:
        raise StartError(f"access policy: {where} has {unknown[0][:40]!r}; expected {', '.join(sorted(known))}")
