"""A server whose HTTP port speaks TLS and asks for clients' certificates, and what its clients connect with."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferry_server.addresses import Address
from inferry_server.app import Server
from testkit import onnx_models
from testkit.certificates import Authority
from testkit.servers import running_server


@dataclass(frozen=True)
class MutualTls:
    """A server with the model `doubler`, and an authority that it trusts and that has issued its certificate.

    Attributes:
        port: of HTTP.
        known: for a client with a certificate of that authority.
    """

    server: Server
    port: int
    known: ssl.SSLContext
    authority: Authority

    def trusting(self) -> ssl.SSLContext:
        """For a client that trusts the server and has no certificate."""
        return ssl.create_default_context(cafile=self.authority.certificate)


@contextmanager
def mutual_tls(folder: Path) -> Iterator[MutualTls]:
    onnx_models.save_doubler(folder / "models")
    authority = Authority(folder, "authority")
    own, client = authority.issue("localhost", "DNS:localhost"), authority.issue("client", "DNS:client")
    known = ssl.create_default_context(cafile=authority.certificate)
    known.load_cert_chain(client.certificate, client.key)
    with running_server(
        folder / "models", http_inference="on", http_address=Address("localhost", 0),
        tls_certificate=own.certificate, tls_private_key=own.key, tls_client_ca=authority.certificate,
    ) as server:  # fmt: skip
        assert server.http_address is not None
        yield MutualTls(server, server.http_address.port, known, authority)
