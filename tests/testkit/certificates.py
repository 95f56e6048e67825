"""Certificates that are made where a test needs them, with openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates for two days.

    Args:
        folder: for its files.
        name: of it.
        issuer: who has issued its own certificate; None: itself.
    """

    def __init__(self, folder: Path, name: str, issuer: "Authority | None" = None) -> None:
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        if issuer is None:
            _openssl("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.certificate, "-days", "2",
                     "-subj", f"/CN={name}")  # fmt: skip
        else:
            issuer._sign(name, Certificate(self.certificate, self._key), "basicConstraints=critical,CA:TRUE", 2)

    def issue(self, name: str, *alternatives: str, days: int = 2) -> Certificate:
        """A certificate for names (`DNS:inferry.test`, `IP:127.0.0.1`), or for none; below 0 days it has ended."""
        issued = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        extension = f"subjectAltName={','.join(alternatives)}" if alternatives else "basicConstraints=CA:FALSE"
        self._sign(name, issued, extension, days)
        return issued

    def _sign(self, name: str, issued: Certificate, extension: str, days: int) -> None:
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"{extension}\n")
        _openssl("req", *_KEY, "-keyout", issued.key, "-out", request, "-subj", f"/CN={name}")
        _openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
                 "-out", issued.certificate, "-days", days, "-extfile", extensions)  # fmt: skip


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
