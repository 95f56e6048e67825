"""The parameters with which requests and responses say that a tensor lies in shared memory."""

from collections.abc import Mapping, MutableMapping

from inferry_proto.open_inference_pb2 import InferParameter
from inferry_server.errors import InvalidRequestError
from inferry_server.wire.shared_memory import RegionSlice, SharedMemoryRegions

_REGION, _BYTE_SIZE, _OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
_KINDS = {_REGION: "string_param", _BYTE_SIZE: "int64_param", _OFFSET: "int64_param"}


def read_region(
    parameters: Mapping[str, InferParameter], regions: SharedMemoryRegions, *, tensor: str
) -> RegionSlice | None:
    """The memory that a tensor's parameters name; None where they name none.

    Args:
        parameters: of an input or a requested output.
        regions: those that are registered.
        tensor: what they belong to, for errors.

    Raises:
        InvalidRequestError: a parameter of another type, an unknown region, or bytes it does not have.
    """
    if _REGION not in parameters:
        return None
    for name, expected in _KINDS.items():
        came = parameters[name].WhichOneof("parameter_choice") if name in parameters else "missing"
        if came != expected and not (came == "missing" and name == _OFFSET):
            raise InvalidRequestError(f"{tensor}: parameter {name!r} must be {expected}, not {came or 'empty'}")
    offset = parameters[_OFFSET].int64_param if _OFFSET in parameters else 0
    try:
        return regions.slice(
            parameters[_REGION].string_param, offset=offset, byte_size=parameters[_BYTE_SIZE].int64_param
        )
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{tensor}: {error}") from None


def write_region(parameters: MutableMapping[str, InferParameter], memory: RegionSlice, *, byte_size: int) -> None:
    """Say where an output lies, and how many bytes it has."""
    parameters[_REGION].string_param = memory.region
    parameters[_BYTE_SIZE].int64_param = byte_size
    parameters[_OFFSET].int64_param = memory.offset
