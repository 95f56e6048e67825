"""How grpcio's asyncio server takes the steps of a drain."""

import asyncio

import grpc.aio

from inferry_server.transport.aio_handler import AioHandler


class AioDraining:
    """What `drain` asks of grpcio's asyncio server, on its loop. The server itself cancels what is left.

    Attributes:
        ended: done when it has stopped.
    """

    def __init__(self, server: grpc.aio.Server, handler: AioHandler, grace_s: float) -> None:
        self._server = server
        self._handler = handler
        self._grace_s = grace_s
        self._closing: asyncio.Task[None] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def last_arrival(self) -> float:
        """As `Draining.last_arrival`."""
        return self._handler.last_arrival

    def hold(self) -> None:
        """As `Draining.hold`."""
        self._handler.hold()

    def owes_replies(self) -> bool:
        """As `Draining.owes_replies`."""
        return self._handler.owes_replies()

    def has_ended(self) -> bool:
        """As `Draining.has_ended`."""
        return self.ended.done()

    def close(self) -> None:
        """As `Draining.close`."""
        self._closing = asyncio.ensure_future(self._close())

    def turn_away(self) -> None:
        """As `Draining.turn_away`."""
        self._handler.turn_away()

    async def _close(self) -> None:
        try:
            stopping = asyncio.ensure_future(self._server.stop(self._grace_s))
            await asyncio.sleep(0)  # lets it begin: from here on no call arrives
            self._handler.release()
            await stopping
        finally:
            self.ended.set_result(None)
