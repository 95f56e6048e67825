"""How long an HTTP client is waited for, and how large the head of its request may be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HttpLimits:
    """Bounds of one connection.

    Attributes:
        read_s: for the client to shake hands, from connecting; to send the headers of a request, from its first byte
            or from connecting; and for its body, besides a second for each 64 KiB that have come.
        write_s: for the client to read what the system does not buffer for it.
        header_bytes: of a request: path, names and values.
    """

    read_s: float = 10.0
    write_s: float = 30.0
    header_bytes: int = 64 << 10
