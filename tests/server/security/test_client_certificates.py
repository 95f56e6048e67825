"""How long a client's certificate holds on a connection that is known, and how much is kept of it."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inferry_server.errors import UnauthenticatedError
from inferry_server.security.client_certificates import ClientCertificates
from testkit.certificates import Authority

PEER, NAMES = b"ipv4:192.0.2.1:1", [b"client.test"]


class Told:
    """What gRPC tells of a connection; counts how often the certificate is read."""

    def __init__(self, pem: bytes) -> None:
        self.pem, self.reads = pem, 0

    def get(self, key: bytes, default: Any) -> Any:
        if key == b"x509_pem_cert":
            self.reads += 1
            return [self.pem]
        return list(NAMES) if key in (b"peer_dns", b"x509_subject_alternative_name") else default


@pytest.fixture
def pem(tmp_path: Path) -> bytes:
    return Authority(tmp_path, "authority").certificate.read_bytes()


def test_a_certificate_is_read_once_a_second_and_never_later_than_its_end(pem: bytes) -> None:
    now = [0.0]
    certificates, told = ClientCertificates(lambda: now[0]), Told(pem)
    certificates.check(told, PEER)
    end = certificates._next_end
    for moment, holds in ((0.0, True), (0.9, True), (1.0, False), (-1.0, False)):  # a clock may be set back
        now[0] = moment
        assert certificates.holds(PEER, NAMES) is holds
    now[0] = end - 0.5
    certificates.check(told, PEER)
    assert certificates.holds(PEER, NAMES)
    now[0] = end
    assert not certificates.holds(PEER, NAMES)
    with pytest.raises(UnauthenticatedError):
        certificates.check(told, PEER)
    assert told.reads == 3 + 1  # its names are read once


def test_nothing_holds_that_was_read_under_other_authorities(pem: bytes) -> None:
    class Nobody:
        asked = 0

        def vouches_for(self, chain: object) -> bool:
            self.asked += 1
            return False

    certificates, told, nobody = ClientCertificates(lambda: 0.0), Told(pem), Nobody()
    certificates.check(told, PEER)
    certificates.exchange(nobody)
    assert certificates.is_due()
    assert not certificates.holds(PEER, NAMES)
    for _ in range(3):
        with pytest.raises(UnauthenticatedError, match="do not vouch"):
            certificates.check(told, PEER)
    assert not certificates.holds(PEER, NAMES)
    assert nobody.asked == 1  # once for each certificate
    certificates.begin_review()
    assert not certificates.is_due()


def test_a_certificate_that_was_refused_is_taken_with_those_between_it_and_an_authority(pem: bytes) -> None:
    class Root:
        asked = 0

        def vouches_for(self, chain: Sequence[bytes]) -> bool:
            self.asked += 1
            return len(chain) > 1

    certificates, root = ClientCertificates(lambda: 0.0), Root()
    certificates.exchange(root)
    alone = {b"x509_pem_cert": [pem], b"x509_common_name": [b"client"]}
    for _ in range(2):
        with pytest.raises(UnauthenticatedError, match="do not vouch"):
            certificates.check(alone)
    for _ in range(2):
        certificates.check({**alone, b"x509_pem_cert_chain": [pem]})
    assert root.asked == 2


def test_a_connection_is_known_by_its_client_and_where_it_is_and_not_at_all_where_that_tells_nothing(
    pem: bytes,
) -> None:
    certificates = ClientCertificates(lambda: 0.0)
    for peer in (PEER, b"unix:", b""):
        certificates.check(Told(pem), peer)
        assert certificates.holds(peer, NAMES) is (peer == PEER)
    others: tuple[list[bytes] | None, ...] = ([], None, [b"other.test"], [*NAMES, b"other.test"], [b"CLIENT.test"])
    assert not any(certificates.holds(PEER, names) for names in others)
    assert not certificates.holds(b"ipv4:192.0.2.1:2", NAMES)
    certificates.check({}, b"ipv4:192.0.2.1:3")
    assert not any(certificates.holds(b"ipv4:192.0.2.1:3", names) for names in ([], None, NAMES))


def test_roles_are_those_of_the_certificate_that_is_shown_whatever_was_known_of_the_connection(pem: bytes) -> None:
    certificates = ClientCertificates(lambda: 0.0)
    certificates.check(Told(pem), PEER)
    assert certificates.holds(PEER, NAMES)
    assert certificates.names({b"x509_pem_cert": [b"another"], b"x509_common_name": [b"other"]}) == {"CN:other"}
    assert certificates.names(Told(pem)) == {"DNS:client.test"}
    assert certificates.names({}) == set()


def test_open_calls_are_looked_at_when_the_next_certificate_ends_and_not_before(pem: bytes) -> None:
    now = [0.0]
    certificates = ClientCertificates(lambda: now[0])
    assert not certificates.is_due()
    certificates.check(Told(pem))
    end = certificates._next_end
    due = []
    for moment in (end - 1, end, end + 1):
        now[0] = moment
        due.append(certificates.is_due())
        if due[-1]:
            certificates.begin_review()
    assert due == [False, True, False]
    now[0] = 0.0
    certificates.check(Told(pem))  # the clock was set back
    now[0] = end
    assert certificates.is_due()


def test_what_cannot_be_read_refuses_nobody_and_the_tables_are_bounded() -> None:
    certificates = ClientCertificates(lambda: 0.0)
    for number in range(5000):
        certificates.check({b"x509_pem_cert": [b"%d" % number]})
    assert len(certificates._found.certificates) <= 4096
    for number in range(20_000):
        certificates.check(Told(b"x"), b"ipv4:192.0.2.1:%d" % number)
    assert len(certificates._found.connections) == len(certificates._seen) == 16_384
    assert certificates.holds(b"ipv4:192.0.2.1:19999", NAMES)
    assert not certificates.holds(b"ipv4:192.0.2.1:0", NAMES)
    assert certificates.connections == 20_000


def many_names(number: int) -> dict[bytes, list[bytes]]:
    """What gRPC tells of a connection anew each time: a certificate with a thousand names."""
    names = [b"%d.of-%d.test" % (name, number) for name in range(1000)]
    return {b"x509_pem_cert": [b"%d" % number * 5000], b"x509_subject_alternative_name": names, b"peer_dns": names}


def test_connections_of_a_certificate_with_a_thousand_names_take_no_more_than_those_of_others() -> None:
    certificates = ClientCertificates(lambda: 0.0)
    certificates.check(many_names(0), PEER)
    tracemalloc.start()
    try:
        for number in range(200):
            certificates.check(many_names(0), b"ipv4:192.0.2.1:%d" % number)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 200 * 1000
    assert certificates.holds(PEER, many_names(0)[b"peer_dns"])
    assert not certificates.holds(PEER, many_names(1)[b"peer_dns"])


def test_large_certificates_are_bounded_by_their_bytes_and_go_on_being_known() -> None:
    certificates = ClientCertificates(lambda: 0.0)
    for number in range(1000, 3000):
        told = {b"x509_pem_cert": [b"%d" % number * 5000], b"x509_common_name": [b"%d" % number]}
        certificates.check(told, PEER)
        assert certificates.names(told) == {f"CN:{number}"}
        assert certificates.holds(PEER, [b"%d" % number])
    assert sum(len(one.pem) for one in certificates._found.certificates.values()) <= 8 << 20


def test_two_certificates_are_not_confused_however_alike_they_are() -> None:
    certificates, end = ClientCertificates(lambda: 0.0), b"x" * 500
    both = [{b"x509_pem_cert": [pem + end], b"x509_common_name": [pem]} for pem in (b"one", b"two")]
    for told in both * 3:
        assert certificates.names(told) == {f"CN:{told[b'x509_common_name'][0].decode()}"}
        certificates.check(told, PEER)
    assert certificates.connections == 2


def test_a_certificate_that_holds_no_more_has_no_roles_on_a_connection_that_is_known(pem: bytes) -> None:
    """Another one, with the same names, had the address and the port a moment ago."""
    now = [0.0]
    certificates = ClientCertificates(lambda: now[0])
    certificates.check(Told(pem))
    end = certificates._next_end
    now[0] = end
    certificates.check(Told(b"another one that has not ended"), PEER)
    assert certificates.holds(PEER, NAMES)
    with pytest.raises(UnauthenticatedError, match="has ended"):
        certificates.names(Told(pem))
