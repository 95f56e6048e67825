"""What a training looks like while it runs: one line an epoch, on a terminal and in a log alike."""

import sys
import time
from typing import TextIO

from inferry_trainer.training.records import EpochRecord

_REDRAW_S = 0.2


class TrainingProgress:
    """Prints one line an epoch and, on a terminal only, a line that counts the steps within one.

    Called by the thread that trains; never blocks but on the stream.
    """

    def __init__(self, epochs: int, steps: int, *, stream: TextIO | None = None) -> None:
        self._epochs = epochs
        self._steps = steps
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()
        self._drawn_at = 0.0
        self._spent_s = 0.0
        self._epochs_seen = 0

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Redraw the line within an epoch, a few times a second."""
        now = time.monotonic()
        if self._is_terminal and now - self._drawn_at >= _REDRAW_S:
            self._drawn_at = now
            self._write(f"\r\x1b[K{self._counter(epoch)}  step {step}/{self._steps}  loss {loss:.4f}")

    def epoch(self, record: EpochRecord) -> None:
        """Print an epoch's line."""
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
