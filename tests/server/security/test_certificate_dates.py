"""When certificates end, and that no bytes disturb whoever asks."""

import base64
import ssl
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferry_server.security.certificate_dates import earliest_end
from testkit.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


def test_the_end_of_a_certificate_is_what_openssl_says(authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    (told,) = context.get_ca_certs()
    assert earliest_end(authority.certificate.read_bytes()) == ssl.cert_time_to_seconds(str(told["notAfter"]))


def test_of_a_chain_the_first_end_counts_and_what_is_no_certificate_does_not(
    authority: Authority, tmp_path: Path
) -> None:
    pem = authority.certificate.read_bytes()
    end = earliest_end(pem)
    der = base64.b64decode(pem.split(b"-----")[2])
    assert end is not None
    sooner = der.replace(der[der.index(b"Z\x17\r") + 3 :][:13], b"270102030405Z")
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(sooner) + b"\n-----END CERTIFICATE-----\n"
    broken = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    assert earliest_end(pem + broken + text) == min(end, ssl.cert_time_to_seconds("Jan  2 03:04:05 2027 GMT"))


@given(st.binary(max_size=80))
@example(b"")
@example(b"\x30\x84\xff\xff\xff\xff")
def test_any_bytes_have_an_end_or_none(der: bytes) -> None:
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der) + b"\n-----END CERTIFICATE-----\n"
    assert earliest_end(text) is None
    assert earliest_end(der) is None
