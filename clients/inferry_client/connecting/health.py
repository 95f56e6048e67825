"""grpc.health.v1, as far as clients need it: is the server as a whole ready for requests?

Both messages are read and written here, since the package that has them asks for its own versions
of gRPC and protobuf: the request names no service, so it is empty; the answer's field 1 is a number.
"""

CHECK_PATH = "/grpc.health.v1.Health/Check"
CHECK_REQUEST = b""

_SERVING = b"\x08\x01"


def is_serving(reply: bytes) -> bool:
    """Whether a server that answered so takes requests."""
    return reply[:2] == _SERVING


def lacks_service(code: str) -> bool:
    """Whether a server that ended the check with this status does not know the service; it counts as serving."""
    return code == "UNIMPLEMENTED"
