"""Curves for TensorBoard, which need nothing but TensorFlow to be written."""

from pathlib import Path

import tensorflow as tf

from inferry_trainer.training.records import EpochRecord

# What `tf.summary.scalar` would say, which is there only where the package tensorboard is installed.
_SCALAR = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR")


class TensorBoardLog:
    """Writes one point an epoch: training and validation as two runs over the same names, so that they overlay.

    Not for several threads; every point is on disk when `epoch` returns.
    """

    def __init__(self, folder: Path | None) -> None:
        """Nothing is made on disk before the first epoch; with None nothing ever is."""
        self._folder = folder
        self._writers: dict[str, object] = {}

    def epoch(self, record: EpochRecord, *, learning_rate: float) -> None:
        """Add an epoch's point."""
        self._write(
            "training",
            record.epoch,
            {"loss": record.loss, "accuracy": record.accuracy, "learning_rate": learning_rate},
        )
        self._write("validation", record.epoch, {"loss": record.val_loss, "accuracy": record.val_accuracy})

    def _write(self, name: str, epoch: int, values: dict[str, float]) -> None:
        if self._folder is None:
            return
        if name not in self._writers:
            self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))
        writer = self._writers[name]
        with writer.as_default():  # type: ignore[attr-defined]  # TensorFlow has no types
            for tag, value in values.items():
                tf.summary.write(tag, tf.constant(value, tf.float32), step=epoch, metadata=_SCALAR)
        writer.flush()  # type: ignore[attr-defined]
