"""A certificate has the same names over gRPC and over HTTP, spelled as a policy may spell them in any way."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.errors import StartError
from inferry_server.security.certificate_names import names_of, names_of_peer
from inferry_server.security.policy import parse_policy


def spelled_by_ssl(packed: bytes) -> str:
    """As `ssl.SSLSocket.getpeercert` spells it: eight groups, upper case, nothing shortened."""
    if len(packed) == 4:
        return socket.inet_ntoa(packed)
    return ":".join(f"{int.from_bytes(packed[at : at + 2], 'big'):X}" for at in range(0, 16, 2))


def policy_of(name: str) -> bytes:
    return f'[callers.x]\nroles = ["infer"]\ncertificates = ["{name}"]\n'.encode()


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_an_address_is_the_same_name_over_grpc_over_http_and_in_policies(packed: bytes) -> None:
    by_grpc = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
    by_ssl = spelled_by_ssl(packed)
    (name,) = names_of({b"peer_ip": [by_grpc.encode()]})
    assert names_of_peer({"subjectAltName": (("IP Address", by_ssl),)}) == [name]
    for spelled in (by_grpc, by_ssl, by_ssl.lower(), ipaddress.ip_address(packed).exploded):
        assert list(parse_policy(policy_of(f"IP:{spelled}")).certificates) == [name]


@given(
    st.binary(max_size=20).filter(lambda text: not text.isascii()) | st.sampled_from([b"", b"<invalid>", b"::1%eth0"])
)
def test_what_is_no_address_has_no_name_and_fails_nothing(text: bytes) -> None:
    assert names_of({b"peer_ip": [text], b"peer_dns": [b"a.test"]}) == ["DNS:a.test"]
    assert names_of_peer({"subjectAltName": (("IP Address", text.decode("latin-1")), ("DNS", "a.test"))}) == [
        "DNS:a.test"
    ]


@pytest.mark.parametrize(
    "spelled", ["10.0.0.0/8", "010.0.0.1", "fe80::1%eth0", "localhost", "1.2.3", " 1.2.3.4", "[::1]", "::g"]
)
def test_an_address_that_no_certificate_can_have_is_refused_in_a_policy(spelled: str) -> None:
    with pytest.raises(StartError, match="entry 1 of certificates is no IP address; expected one whole address"):
        parse_policy(policy_of(f"IP:{spelled}"))


def test_two_spellings_of_one_address_are_not_two_callers() -> None:
    other = policy_of("IP:::1").replace(b"callers.x", b"callers.y")
    with pytest.raises(StartError, match="belongs to both callers 'x' and 'y'"):
        parse_policy(policy_of("IP:0:0:0:0:0:0:0:1") + other)


def test_of_several_common_names_the_first_counts_as_over_grpc() -> None:
    subject = ((("commonName", "first"),), (("commonName", "second"),))
    assert names_of({b"x509_common_name": [b"first"]}) == ["CN:first"]
    assert names_of_peer({"subject": subject}) == ["CN:first", "subject:CN=second,CN=first"]
