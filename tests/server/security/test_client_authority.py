"""Authorities vouch for the certificates that they would let in in a handshake, and for no others."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from inferry_server.security import client_authority
from inferry_server.security.client_authority import ClientAuthority
from inferry_server.security.pem import certificates_in
from testkit.certificates import Authority, Certificate


@dataclass(frozen=True)
class Issued:
    """A root, an authority that it has issued, a stranger, and whose certificates are from them."""

    root: Authority
    between: Authority
    stranger: Authority
    server: Certificate

    def authority(self, *trusted: Authority) -> ClientAuthority:
        pem = b"".join(one.certificate.read_bytes() for one in trusted)
        return ClientAuthority(self.server.certificate.read_bytes(), self.server.key.read_bytes(), pem)


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    folder = tmp_path_factory.mktemp("issued")
    root = Authority(folder, "root")
    return Issued(root, Authority(folder, "between", root), Authority(folder, "stranger"),
                  root.issue("server", "DNS:server"))  # fmt: skip


def chain(*files: Path) -> list[bytes]:
    return [der for path in files for der in certificates_in(path.read_bytes())]


def test_who_was_issued_by_one_of_the_authorities_is_vouched_for(issued: Issued) -> None:
    client = issued.root.issue("client", "DNS:client").certificate
    assert issued.authority(issued.root).vouches_for(chain(client))
    assert issued.authority(issued.stranger, issued.root).vouches_for(chain(client))
    assert not issued.authority(issued.stranger).vouches_for(chain(client))


def test_certificates_between_come_with_the_clients_or_are_trusted_themselves(issued: Issued) -> None:
    client, between = issued.between.issue("far", "DNS:far").certificate, issued.between.certificate
    root, own = issued.authority(issued.root), issued.authority(issued.between)
    assert root.vouches_for(chain(client, between))
    assert not root.vouches_for(chain(client))
    assert own.vouches_for(chain(client))
    assert root.vouches_for(chain(client, *[between] * 60))  # more than one record of TLS takes
    assert not issued.authority(issued.stranger).vouches_for(chain(client, between, issued.root.certificate))


def test_a_certificate_that_is_its_own_authority_is_vouched_for_by_itself_alone(issued: Issued) -> None:
    alone = issued.stranger.certificate
    assert issued.authority(issued.stranger).vouches_for(chain(alone))
    assert not issued.authority(issued.root).vouches_for(chain(alone))


def test_who_issues_without_being_an_authority_is_not_believed(issued: Issued, tmp_path: Path) -> None:
    client = issued.root.issue("client-that-signs", "DNS:client")
    forged = Authority(tmp_path, "forged")
    forged.certificate, forged._key = client.certificate, client.key
    victim = forged.issue("victim", "DNS:ops").certificate
    assert not issued.authority(issued.root).vouches_for(chain(victim, client.certificate))


def test_a_certificate_that_has_ended_is_not_vouched_for(issued: Issued) -> None:
    ended = issued.root.issue("ended", "DNS:ended", days=-1).certificate
    assert not issued.authority(issued.root).vouches_for(chain(ended))


@pytest.mark.parametrize("der", [[], [b""], [b"junk"], [b"\x30\x03\x02\x01\x00"], [bytes(200_000)]])
def test_what_is_no_certificate_is_not_vouched_for(issued: Issued, der: list[bytes]) -> None:
    assert not issued.authority(issued.root).vouches_for(der)


def test_an_openssl_that_asks_for_no_certificate_is_not_relied_on(
    issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_authority, "_hello", lambda: b"what no server goes on with")
    with pytest.raises(ssl.SSLError, match="does not ask"):
        issued.authority(issued.root)


def test_an_openssl_that_verifies_nothing_is_not_relied_on(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientAuthority, "vouches_for", lambda *_: True)
    with pytest.raises(ssl.SSLError, match="does not verify"):
        issued.authority(issued.root)
