"""The shared memory extensions: clients register regions, list them and unregister them."""

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.rpc.call import Call, UnaryHandler
from inferry_server.wire.messages import parse
from inferry_server.wire.shared_memory import Region, SharedMemoryRegions


class SharedMemoryService:
    """Answers at once. Thread-safe.

    Listing and unregistering also work where shared memory is off, and for CUDA's memory, which this server never
    offers: clients unregister all regions before they start.
    """

    def __init__(self, regions: SharedMemoryRegions) -> None:
        self._regions = regions

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        handlers: dict[str, UnaryHandler] = {
            "SystemSharedMemoryStatus": self.status,
            "SystemSharedMemoryRegister": self.register,
            "SystemSharedMemoryUnregister": self.unregister,
            "CudaSharedMemoryStatus": self.cuda_status,
            "CudaSharedMemoryUnregister": self.cuda_unregister,
        }
        return {OPEN_INFERENCE[name].path: handler for name, handler in handlers.items()}

    def status(self, call: Call, message: bytes) -> None:
        """One region, or all."""
        request = parse(pb.SystemSharedMemoryStatusRequest, message)
        response = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.status(request.name):
            shown = response.regions[region.name]
            shown.name, shown.key = region.name, region.key
            shown.offset, shown.byte_size = region.offset, region.byte_size
        call.reply(response.SerializeToString())

    def register(self, call: Call, message: bytes) -> None:
        """Make a region known."""
        request = parse(pb.SystemSharedMemoryRegisterRequest, message)
        self._regions.register(Region(request.name, request.key, request.offset, request.byte_size))
        call.reply(pb.SystemSharedMemoryRegisterResponse().SerializeToString())

    def unregister(self, call: Call, message: bytes) -> None:
        """Forget one region, or all."""
        request = parse(pb.SystemSharedMemoryUnregisterRequest, message)
        self._regions.unregister(request.name)
        call.reply(pb.SystemSharedMemoryUnregisterResponse().SerializeToString())

    def cuda_status(self, call: Call, message: bytes) -> None:
        """There is none."""
        parse(pb.CudaSharedMemoryStatusRequest, message)
        call.reply(pb.CudaSharedMemoryStatusResponse().SerializeToString())

    def cuda_unregister(self, call: Call, message: bytes) -> None:
        """There is none."""
        parse(pb.CudaSharedMemoryUnregisterRequest, message)
        call.reply(pb.CudaSharedMemoryUnregisterResponse().SerializeToString())
