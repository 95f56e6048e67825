"""Fitting a model to a data set: deterministic by seed, taken up again after a kill, stopped when it diverges."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import AnyPart, Dataset, FilePart
from inferry_trainer.errors import ConfigError, TrainingError
from inferry_trainer.training.batches import evaluation_batches, training_batches
from inferry_trainer.training.checkpoint import Checkpoint, restore_checkpoint, write_checkpoint
from inferry_trainer.training.records import EpochRecord
from inferry_trainer.training.tensorboard import TensorBoardLog

_EVALUATION_BATCH = 256

StepListener = Callable[[int, int, float], None]
EpochListener = Callable[[EpochRecord], None]


def make_deterministic(seed: int) -> None:
    """Make what follows in this process a function of the seed: first weights, shuffling, dropout, kernels."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def check_precision(config: RunConfig) -> None:
    """Refuse mixed precision where it would only slow things down.

    Raises:
        ConfigError: there is no GPU.
    """
    if config.mixed_precision and not tf.config.list_physical_devices("GPU"):
        raise ConfigError(
            "mixed precision needs a GPU that TensorFlow can use, and it finds none; leave out --mixed-precision"
        )


def is_over(records: Sequence[EpochRecord], config: RunConfig) -> bool:
    """Whether training ends after these epochs: all are done, or the validation loss has not fallen for too long."""
    if len(records) >= config.epochs:
        return True
    return bool(records) and 0 < config.patience <= len(records) - best_epoch(records)


def best_epoch(records: Sequence[EpochRecord]) -> int:
    """The epoch with the lowest validation loss, from 1; the first of equals."""
    return min(records, key=lambda record: record.val_loss).epoch


def compile_model(model: Any, config: RunConfig, *, steps: int) -> None:
    """Give a model its optimizer, loss and metric.

    A network that ends in one number gives a logit: its loss is taken from that, and its decision is
    cut at logit 0, which is probability 0.5. Keras' default would cut the logit itself at 0.5.

    Args:
        model: from `models`.
        config: optimizer, schedule, regularisation.
        steps: an epoch has; the schedule counts in steps.
    """
    binary = model.output_shape[-1] == 1
    model.compile(
        optimizer=_optimizer(config, steps),
        loss=keras.losses.BinaryCrossentropy(from_logits=True) if binary else "sparse_categorical_crossentropy",
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0) if binary else "accuracy"],
        jit_compile=False,  # measured on two CPU cores: XLA takes twice as long here
    )
    model.optimizer.build(model.trainable_variables)


def train_model(
    model: Any,
    dataset: Dataset,
    config: RunConfig,
    *,
    checkpoints: Path | None = None,
    resume_from: Checkpoint | None = None,
    logs: Path | None = None,
    on_epoch: EpochListener = lambda _: None,
    on_step: StepListener = lambda *_: None,
) -> list[EpochRecord]:
    """Fit a model in place.

    Call `make_deterministic` before building the model to get the same weights every time.

    Args:
        model: a Keras model from `models`.
        dataset: its test images are not touched.
        config: everything that decides the result.
        checkpoints: a folder for the state after each epoch; None keeps none.
        resume_from: where to go on; the result is that of a training that was never interrupted.
        logs: a folder for TensorBoard; None writes nothing.
        on_epoch: called after each epoch.
        on_step: called after each step with epoch and step, both from 1, and the epoch's loss so far.

    Returns:
        One record an epoch, those before the resumption included.

    Raises:
        TrainingError: the loss is no longer finite; names epoch and step.
        DatasetError: a file cannot be read as a picture; names it.
        RunFolderError: a checkpoint cannot be written, or is of another network.
    """
    steps = -(-len(dataset.train) // config.batch_size)
    compile_model(model, config, steps=steps)
    watcher = _Watcher(config, checkpoints, logs, on_epoch, on_step)
    if resume_from is not None:
        restore_checkpoint(resume_from, model)
        watcher.resume(resume_from)
    if not is_over(watcher.records, config):
        _fit(model, dataset, config, watcher, steps=steps)
    model.optimizer.finalize_variable_values(model.trainable_variables)  # the averages, where there are any
    if watcher.best_weights is not None:
        model.set_weights(watcher.best_weights)
    return watcher.records


def _fit(model: Any, dataset: Dataset, config: RunConfig, watcher: "_Watcher", *, steps: int) -> None:
    # While validating, the averages are in the model; the watcher comes first, to see them there.
    averages = [keras.callbacks.SwapEMAWeights()] if config.ema_decay else []
    try:
        model.fit(
            training_batches(dataset.train, config, first_epoch=len(watcher.records)),
            initial_epoch=len(watcher.records),
            epochs=config.epochs,
            steps_per_epoch=steps,
            validation_data=evaluation_batches(dataset.validation.prepare(), batch_size=_EVALUATION_BATCH),
            callbacks=[watcher, *averages],
            shuffle=False,  # the order is `training_batches`'
            verbose=0,
        )
    except tf.errors.OpError:
        _name_damaged_file(dataset.train)
        raise


def _name_damaged_file(part: AnyPart) -> None:
    """TensorFlow does not say which file it could not decode; this does, by a DatasetError."""
    if isinstance(part, FilePart):
        part.check()


class _Watcher(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Sees to records, checkpoints, early stopping, and to losses that are no numbers.

    Called by the thread that trains; blocks while a checkpoint is written.
    """

    def __init__(
        self,
        config: RunConfig,
        checkpoints: Path | None,
        logs: Path | None,
        on_epoch: EpochListener,
        on_step: StepListener,
    ) -> None:
        super().__init__()
        self.records: list[EpochRecord] = []
        self.best_weights: list[Any] | None = None
        self._config = config
        self._checkpoints = checkpoints
        self._log = TensorBoardLog(logs)
        self._on_epoch = on_epoch
        self._on_step = on_step
        self._started = (0.0, 0.0)

    def resume(self, checkpoint: Checkpoint) -> None:
        self.records = [*checkpoint.records]
        self.best_weights = checkpoint.best_weights

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002 - Keras' signature
        self._started = (time.monotonic(), cpu_seconds())

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        epoch, loss = len(self.records) + 1, float(logs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {epoch}, step {batch + 1}, at learning rate "
                f"{self._config.learning_rate:g}; nothing was saved. Lower the learning rate or look for damaged images"
            )
        self._on_step(epoch, batch + 1, loss)

    def on_test_end(self, logs: Mapping[str, float]) -> None:
        lowest = min((record.val_loss for record in self.records), default=math.inf)
        if self._config.patience and float(logs["loss"]) < lowest:
            self.best_weights = self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        wall, cpu = self._started
        figures = {name: float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        record = EpochRecord(epoch=epoch + 1, **figures, wall_s=time.monotonic() - wall, cpu_s=cpu_seconds() - cpu)
        self.records.append(record)
        if self._checkpoints is not None:
            write_checkpoint(self._checkpoints, self.model, self.records, best_weights=self.best_weights)
        self._log.epoch(record, learning_rate=float(self.model.optimizer.learning_rate))
        if is_over(self.records, self._config):
            self.model.stop_training = True
        self._on_epoch(record)


def cpu_seconds() -> float:
    """Seconds of CPU that this process has used, all threads together."""
    times = os.times()
    return times.user + times.system


def _optimizer(config: RunConfig, steps: int) -> Any:
    settings: dict[str, Any] = {"learning_rate": _learning_rate(config, steps)}
    if config.ema_decay:
        settings |= {"use_ema": True, "ema_momentum": config.ema_decay}
    if not config.weight_decay:
        return keras.optimizers.Adam(**settings)
    optimizer = keras.optimizers.AdamW(weight_decay=config.weight_decay, **settings)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _learning_rate(config: RunConfig, steps: int) -> Any:
    if config.schedule == "constant":
        return config.learning_rate
    warmup_steps = min(round(config.warmup_epochs * steps), config.epochs * steps // 2)  # short runs come down too
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=config.learning_rate / 100 if warmup_steps else config.learning_rate,
        decay_steps=config.epochs * steps - warmup_steps,
        warmup_target=config.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
