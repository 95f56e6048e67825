"""Names with zero characters are found wherever a certificate holds them, and nothing else is taken for one."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.security.certificate_names import names_of_peer
from inferry_server.security.certificate_zeros import has_zero
from testkit.certificates import Authority

OID_CN, OID_ALTERNATIVES = b"\x06\x03\x55\x04\x03", b"\x06\x03\x55\x1d\x11"
UTF8, T61, UNIVERSAL, BMP, BIT_STRING = 0x0C, 0x14, 0x1C, 0x1E, 0x03
SOME = b"\x30\x00"


def der(tag: int, *contents: bytes) -> bytes:
    inside = b"".join(contents)
    length = bytes([len(inside)]) if len(inside) < 128 else b"\x82" + len(inside).to_bytes(2, "big")
    return bytes([tag]) + length + inside


def certificate(
    subject: bytes = b"", kind: int = UTF8, alternatives: bytes = b"", *, version: bytes = b"\xa0\x03\x02\x01\x02"
) -> bytes:
    """PEM of what is signed, without a signature."""
    name = der(0x30, der(0x31, der(0x30, OID_CN, der(kind, subject))))
    extension = der(0x30, OID_ALTERNATIVES, b"\x01\x01\xff", der(0x04, der(0x30, alternatives)))
    extensions = der(0xA3, der(0x30, extension))
    signed = der(0x30, version, b"\x02\x01\x00", SOME, SOME, SOME, name, SOME, extensions)
    return b"-----BEGIN CERTIFICATE-----\n%b\n-----END CERTIFICATE-----\n" % base64.encodebytes(der(0x30, signed))


@pytest.mark.parametrize("version", [b"", b"\xa0\x03\x02\x01\x02"])
@given(text=st.text(max_size=20), tag=st.sampled_from([0x81, 0x82, 0x86]))
def test_a_zero_is_found_in_the_subject_and_in_its_alternatives(version: bytes, text: str, tag: int) -> None:
    expected = "\0" in text
    assert has_zero(certificate(text.encode(), version=version)) is expected
    assert has_zero(certificate(text.encode("utf-32-be", "replace"), UNIVERSAL, version=version)) is expected
    assert has_zero(certificate(alternatives=der(tag, b"x") + der(tag, text.encode()), version=version)) is expected


@pytest.mark.parametrize(
    ("subject", "kind", "alternatives", "expected"),
    [
        ("ops".encode("utf-16-be"), BMP, b"", False),
        ("ops\0x".encode("utf-16-be"), BMP, b"", True),
        ("\u0100\u0001".encode("utf-16-be"), BMP, b"", False),  # two zeros, of two characters
        (b"ops\0", T61, b"", True),
        (b"\0\1", BIT_STRING, b"", False),
        (b"ops", UTF8, der(0x87, bytes(4)), False),  # an address has zeros
    ],
)
def test_a_zero_is_a_character_and_not_a_byte(subject: bytes, kind: int, alternatives: bytes, expected: bool) -> None:
    assert has_zero(certificate(subject, kind, alternatives)) is expected


def test_real_certificates_have_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    issued = authority.issue("x", *(f"DNS:n{number}.test" for number in range(300)), "IP:10.0.0.0", "URI:a:b")
    assert not has_zero(authority.certificate.read_bytes())
    assert not has_zero(issued.certificate.read_bytes())


@given(st.integers(0, 60), st.integers(1, 255))
def test_what_cannot_be_read_fails_nothing_and_what_is_cut_off_is_not_relied_on(at: int, by: int) -> None:
    whole = certificate(b"ops", UTF8, der(0x82, b"ops.test"))
    data = base64.b64decode(b"".join(whole.split(b"\n")[1:-2]))
    spoiled = data[:at] + bytes([(data[at % len(data)] + by) % 256]) + data[at + 1 :]
    for changed, must_refuse in ((spoiled, False), (data[: at + 1], True)):
        pem = b"-----BEGIN CERTIFICATE-----%b-----END CERTIFICATE-----" % base64.b64encode(changed)
        assert has_zero(pem) or not must_refuse


def test_over_http_such_a_certificate_has_no_names_either() -> None:
    subject = ((("commonName", "ops"),),)
    assert names_of_peer({"subject": subject, "subjectAltName": (("DNS", "a\0b"), ("DNS", "ops.test"))}) == []
    assert names_of_peer({"subject": ((("commonName", "ops\0"),),), "subjectAltName": (("DNS", "ops.test"),)}) == []
