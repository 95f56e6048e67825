"""What a policy file may say, and that nothing in it is taken for something else."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE
from inferry_server.errors import StartError
from inferry_server.security.policy import parse_policy
from inferry_server.security.roles import REFLECTION, ROLES, Role
from testkit.policies import digest_of

DIGEST = digest_of("a token")
TWICE = "[callers.b]\nroles = []\n{0}\n[callers.c]\nroles = []\n{0}"
WHOLE = f"""
anonymous = ["read"]
reflection = "open"
metrics = "admin"
[callers.batch]
roles = ["infer"]
tokens_sha256 = ["{DIGEST}"]
expires = 2027-01-01T00:00:00Z
[callers.operators]
roles = ["read", "admin"]
certificates = ["URI:spiffe://prod/ops", "subject:CN=ops,O=Example"]
"""


def test_a_policy_says_who_may_do_what() -> None:
    policy = parse_policy(WHOLE.encode())
    assert (set(policy.anonymous), policy.methods[REFLECTION[0]], policy.metrics) == ({Role.READ}, None, Role.ADMIN)
    (token,) = policy.tokens.values()
    assert (token.digest.hex(), token.caller.name, set(token.caller.roles)) == (DIGEST, "batch", {Role.INFER})
    assert token.caller.expires == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert {name: caller.name for name, caller in policy.certificates.items()} == {
        "URI:spiffe://prod/ops": "operators",
        "subject:CN=ops,O=Example": "operators",
    }


def test_a_policy_that_says_nothing_lets_nobody_in() -> None:
    policy = parse_policy(b"")
    assert (policy.anonymous, policy.methods[REFLECTION[1]], policy.metrics) == (frozenset(), Role.READ, None)
    assert not policy.tokens
    assert not policy.certificates


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anonymous = 'infer'", "anonymous must be a list of texts"),
        ("anonymous = ['inver']", "anonymous: that is no role; expected infer, read, admin"),
        ("reflection = 'yes'", "reflection: that is no role; expected infer, read, admin, open"),
        ("caller = {}", "the file has 'caller'; expected anonymous, callers"),
        ("callers = []", r"\[callers.NAME\]"),
        ("[callers]\nbatch = 1", r"\[callers.batch\]"),
        ("[callers.batch]\nroles = []", "nobody can be it"),
        (f"[callers.batch]\ntokens_sha256 = ['{DIGEST}']", "roles must be a list"),
        ("[callers.batch]\nroles = []\ntoken = 'x'", "caller 'batch' has 'token'; expected certificates"),
        (f"[callers.b]\nroles = []\ntokens_sha256 = ['{DIGEST}']\nexpires = 'soon'", "2027-01-01T00:00:00Z"),
        ("[callers.b]\nroles = []\ncertificates = ['CN:x']\nexpires = 2027-01-01T00:00:00Z", "it has none"),
        ("[callers.b]\nroles = []\ncertificates = ['ops']", "is not KIND:NAME; kinds are subject, CN"),
        (TWICE.format(f"tokens_sha256 = ['{DIGEST}']"),
         "entry 1 of tokens_sha256 belongs to both callers 'b' and 'c'"),
        (TWICE.format("certificates = ['CN:x']"),
         "certificate 'CN:x' belongs to both callers 'b' and 'c'"),
        ("callers = {" + "a = {" * 5000, "not TOML"),
        ("#" * (1 << 20) + "#", "at most 1048576"),
    ],
)  # fmt: skip
def test_a_policy_that_means_nothing_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(StartError, match=message):
        parse_policy(text.encode())


@pytest.mark.parametrize("shown", ["hunter2", DIGEST.upper(), DIGEST[:-1], f"{DIGEST} "])
def test_a_token_in_a_place_for_something_else_is_not_repeated(shown: str) -> None:
    for entry in (
        f"roles = []\ntokens_sha256 = ['{shown}']",
        f"roles = []\ntokens_sha256 = '{shown}'",
        f"roles = []\ncertificates = ['{shown}']",
        f"roles = ['{shown}']",
        f"roles = '{shown}'",
        f"roles = [{shown}]",
    ):
        with pytest.raises(StartError) as refused:
            parse_policy(f"[callers.batch]\n{entry}".encode())
        assert shown not in str(refused.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_refused(text: bytes) -> None:
    told = ""
    try:
        parse_policy(text)
    except StartError as error:
        told = str(error)
    assert len(told) < 500


def test_every_method_is_open_or_asks_for_the_role_that_is_stated() -> None:
    methods = {name: method.path for methods in (OPEN_INFERENCE, IMAGE_CLASSIFIER) for name, method in methods.items()}
    roles = {name: ROLES.get(path, Role.ADMIN) or "open" for name, path in methods.items()}
    assert {role: sorted(name for name in roles if roles[name] == role) for role in set(roles.values())} == {
        "open": ["ModelReady", "ServerLive", "ServerReady"],
        "infer": ["Classify", "ClassifyStream", "ModelInfer", "ModelStreamInfer"],
        "read": ["DescribeModel", "ModelConfig", "ModelMetadata", "ModelStatistics", "RepositoryIndex",
                 "ServerMetadata"],
        "admin": ["CudaSharedMemoryStatus", "CudaSharedMemoryUnregister", "LogSettings", "RepositoryModelLoad",
                  "RepositoryModelUnload", "SystemSharedMemoryRegister", "SystemSharedMemoryStatus",
                  "SystemSharedMemoryUnregister", "TraceSetting"],
    }  # fmt: skip


def test_the_digest_of_an_empty_token_is_nobodys() -> None:
    """What `printf %s "$TOKEN" | sha256sum` prints where TOKEN was not set."""
    text = f'[callers.a]\nroles = ["infer"]\ntokens_sha256 = ["{digest_of("")}"]\n'
    with pytest.raises(StartError, match="digest of an empty text"):
        parse_policy(text.encode())
