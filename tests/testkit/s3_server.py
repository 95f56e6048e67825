"""An S3-compatible server of somebody else's, in this process, with a bucket for each test."""

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

from inferry_client.batch.addresses import read_address
from inferry_client.batch.remote.objects import list_below, read_object


@contextmanager
def object_store() -> Iterator[str]:
    """The server, to its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def environment(endpoint: str) -> dict[str, str]:
    """What a client of it needs."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }


def make_bucket(endpoint: str, name: str) -> str:
    """A new bucket, to its address."""
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT"), timeout=10):  # noqa: S310
        return f"s3://{name}"


def objects(address: str) -> dict[str, bytes]:
    """All that lies below an address, by its name there."""
    folder = read_address(address)
    return {
        found.key.removeprefix(f"{folder.key}/"): read_object(read_address(f"{folder.root}/{found.key}"))
        for found in list_below(folder)
    }
