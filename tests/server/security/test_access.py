"""The decision who may call what, over every kind of credential."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.services import OPEN_INFERENCE
from inferry_server.errors import PermissionDeniedError, UnauthenticatedError
from inferry_server.security.access import Access
from inferry_server.security.policy import parse_policy
from inferry_server.security.roles import OPEN_METHODS, REFLECTION
from testkit.policies import digest_of

INFER, READ, ADMIN = (OPEN_INFERENCE[name].path for name in ("ModelInfer", "RepositoryIndex", "RepositoryModelUnload"))
UNKNOWN = "the bearer token is not known here, or has expired"
POLICY = f"""
[callers.batch]
roles = ["infer"]
tokens_sha256 = ["{digest_of("t-1")}", "{digest_of("t-2")}"]
expires = 1970-01-01T00:01:40Z
[callers.ops]
roles = ["read", "admin"]
certificates = ["DNS:ops.test", "CN:ops"]
tokens_sha256 = ["{digest_of("t-3")}"]
"""


def outcome(
    path: str, *tokens: str, names: Sequence[str] = (), now: float = 0.0, policy: str = POLICY, header: str = "Bearer "
) -> str:
    access = Access(parse_policy(policy.encode()), lambda: now)
    metadata = [("user-agent", "x"), *(("authorization", f"{header}{token}") for token in tokens)]
    try:
        access.check(path, metadata, lambda: names)
    except (UnauthenticatedError, PermissionDeniedError) as error:
        told, message = error.kind, str(error)
    else:
        told, message = "ok", ""
    said = f"{path} {UNKNOWN}"  # whatever the token is
    assert not [token for token in tokens if len(token) > 2 and token in message and token not in said]
    return told


@pytest.mark.parametrize(
    ("path", "tokens", "names", "expected"),
    [
        (INFER, ["t-1"], [], "ok"),
        (INFER, ["t-2"], [], "ok"),
        (INFER, [" t-1 "], [], "ok"),
        (INFER, ["T-1"], [], "unauthenticated"),
        (INFER, [""], [], "unauthenticated"),
        (INFER, [digest_of("t-1")], [], "unauthenticated"),
        (INFER, [], [], "unauthenticated"),
        (INFER, ["t-1", "t-1"], [], "unauthenticated"),
        (READ, ["t-1"], [], "permission_denied"),
        (ADMIN, ["t-1"], [], "permission_denied"),
        (ADMIN, ["t-3"], [], "ok"),
        (INFER, ["t-3"], [], "permission_denied"),
        (ADMIN, [], ["DNS:ops.test"], "ok"),
        (ADMIN, [], ["email:ops.test", "URI:ops.test"], "unauthenticated"),
        (INFER, [], ["CN:ops"], "permission_denied"),
        (INFER, ["t-1"], ["CN:ops"], "ok"),
        (ADMIN, ["t-1"], ["CN:ops"], "ok"),
        (ADMIN, ["revoked"], ["CN:ops"], "unauthenticated"),
        ("/of.a.Service/ThatIsNew", ["t-1"], [], "permission_denied"),
        (REFLECTION[0], ["t-1"], [], "permission_denied"),
        (REFLECTION[0], ["t-3"], [], "ok"),
        *((path, ["revoked"], [], "ok") for path in sorted(OPEN_METHODS)),
    ],
)
def test_a_caller_may_do_what_the_roles_of_its_token_and_certificate_say(
    path: str, tokens: list[str], names: list[str], expected: str
) -> None:
    assert outcome(path, *tokens, names=names) == expected


@pytest.mark.parametrize(("now", "expected"), [(99.9, "ok"), (100.0, "unauthenticated")])
def test_a_token_ends_when_it_expires(now: float, expected: str) -> None:
    assert outcome(INFER, "t-1", now=now) == expected


@pytest.mark.parametrize("header", ["Bearer ", "bearer ", "BEARER "])
def test_the_scheme_is_written_as_the_caller_likes(header: str) -> None:
    assert outcome(INFER, "t-1", header=header) == "ok"


@pytest.mark.parametrize("header", ["", "Basic ", "Bearer"])
def test_another_scheme_is_no_token(header: str) -> None:
    assert outcome(INFER, "t-1", header=header) == "unauthenticated"


def test_everybody_has_the_anonymous_roles_but_nobody_a_wrong_token() -> None:
    policy = 'anonymous = ["read"]\n' + POLICY
    assert outcome(READ, policy=policy) == "ok"
    assert outcome(READ, "t-1", policy=policy) == "ok"
    assert outcome(INFER, policy=policy) == "unauthenticated"
    assert outcome(READ, "wrong", policy=policy) == "unauthenticated"


@pytest.mark.parametrize("token", ["clé", "t-1\xa0", "t-1\u3000", "\ud800", "ключ"])
@pytest.mark.parametrize("over_http", [False, True])
def test_a_token_that_is_not_ascii_is_refused_in_the_same_words_however_it_comes(token: str, over_http: bool) -> None:
    """gRPC gives text as UTF-8 or, where it is none, bytes; HTTP gives each byte as a character."""
    sent = f"Bearer {token}".encode(errors="surrogatepass")
    value: str | bytes = sent if "\ud800" in token else sent.decode()
    policy = POLICY.replace(digest_of("t-1"), hashlib.sha256(sent.removeprefix(b"Bearer ")).hexdigest())
    access = Access(parse_policy(policy.encode()), lambda: 0.0)
    with pytest.raises(UnauthenticatedError, match="not ASCII; expected printable ASCII") as refused:
        access.check(INFER, [("authorization", sent.decode("latin-1") if over_http else value)], list)
    assert refused.value.__cause__ is None
    assert token not in str(refused.value)


def test_a_policy_that_is_exchanged_decides_at_once() -> None:
    access = Access(parse_policy(POLICY.encode()), lambda: 0.0)
    metadata = [("authorization", "Bearer t-1")]
    access.check(INFER, metadata, list)
    access.exchange(parse_policy(POLICY.replace(digest_of("t-1"), digest_of("new")).encode()))
    with pytest.raises(UnauthenticatedError):
        access.check(INFER, metadata, list)
    access.check(INFER, [("authorization", "Bearer new")], list)


@given(st.text(max_size=30), st.sampled_from([INFER, READ, ADMIN, REFLECTION[0], "", "/", "/x"]))
def test_no_text_but_a_token_lets_anybody_in(text: str, path: str) -> None:
    if text.strip() not in ("t-1", "t-2", "t-3"):
        assert outcome(path, text) == "unauthenticated"
