"""What a handler raises ends its call, and nothing else."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from inferry_server.errors import ServingError
from inferry_server.rpc.call import Call, Message, StreamCall, StreamReceiver, fail

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GuardedReceiver:
    """A receiver whose errors become the call's status, and whose messages are checked before it sees them."""

    call: StreamCall
    receiver: StreamReceiver
    check: Callable[[str, Message], None]

    def on_message(self, message: Message) -> None:
        """As `StreamReceiver.on_message`."""
        try:
            self.check(self.call.method, message)  # guard: fields-streams
            self.receiver.on_message(message)
        except Exception as error:  # noqa: BLE001 - no error may leave a call without a reply
            end_with(self.call, error)

    def on_half_close(self) -> None:
        """As `StreamReceiver.on_half_close`."""
        try:
            self.receiver.on_half_close()
        except Exception as error:  # noqa: BLE001 - no error may leave a call without a reply
            end_with(self.call, error)

    def on_drain(self) -> None:
        """As `StreamReceiver.on_drain`."""
        try:
            self.receiver.on_drain()
        except Exception as error:  # noqa: BLE001 - no error may leave a call without a reply
            end_with(self.call, error)


class Deaf:
    """Receives for a call that has ended."""

    def on_message(self, message: Message) -> None:
        """Nobody hears it."""

    def on_half_close(self) -> None:
        """Nobody hears it."""

    def on_drain(self) -> None:
        """Nobody hears it."""


def end_with(call: Call | StreamCall, error: Exception) -> None:
    """End a call with the status of an error; one that nobody foresaw is logged with its traceback."""
    if not isinstance(error, ServingError):
        logger.error("unexpected error in %s", call.method, exc_info=error)
    fail(call, error)
