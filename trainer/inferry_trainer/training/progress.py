"""What a training looks like while it runs: one line an epoch, and within a long one what has been done of it."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from inferry_trainer.training.records import EpochRecord

_REDRAW_S = 0.2  # of the line on a terminal
_LOG_S = 60.0  # between two lines in a log; epochs that are shorter have none within


class TrainingProgress:
    """Prints one line an epoch, and within a long one how far it is.

    On a terminal that is a line that is drawn again, in a log a line a minute.

    Called by the thread that trains; never blocks but on the stream.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs = epochs
        self._steps = steps
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()
        self._clock = clock
        self._began_at = self._told_at = clock()  # of this epoch, and of the last line within it
        self._spent_s = 0.0
        self._epochs_seen = 0

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Tell how far an epoch is, if that was last told long enough ago."""
        now = self._clock()
        if now - self._told_at < (_REDRAW_S if self._is_terminal else _LOG_S):  # guard: progress-sparse
            return
        self._told_at = now
        left_s = (now - self._began_at) / step * (self._steps - step)
        line = (
            f"{self._counter(epoch)}  step {step}/{self._steps}  loss {loss:.4f}  {format_seconds(left_s)} left of it"
        )
        self._write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")

    def epoch(self, record: EpochRecord) -> None:
        """Print an epoch's line."""
        self._began_at = self._told_at = self._clock()
        self._spent_s += record.wall_s
        self._epochs_seen += 1  # fewer than the record's number where a run was taken up again
        left_s = self._spent_s / self._epochs_seen * (self._epochs - record.epoch)
        line = (
            f"{self._counter(record.epoch)}  loss {record.loss:.4f}  accuracy {record.accuracy:.4f}"
            f"  val_loss {record.val_loss:.4f}  val_accuracy {record.val_accuracy:.4f}"
            f"  {record.wall_s:.1f} s  ETA {format_seconds(left_s)}"
        )
        self._write(("\r\x1b[K" if self._is_terminal else "") + line + "\n")

    def _counter(self, epoch: int) -> str:
        return f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def format_seconds(seconds: float) -> str:
    """Minutes and seconds, `2:05`, with hours in front from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
