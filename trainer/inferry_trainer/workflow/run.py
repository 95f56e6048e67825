"""A run: from a data set to a folder with a trained and evaluated model."""

import os
import time
from pathlib import Path

from inferry_trainer.calibration import choose_calibration_images
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import load_dataset, takes_files
from inferry_trainer.description import describe_run
from inferry_trainer.evaluate import Evaluation, evaluate_probabilities, predict_probabilities
from inferry_trainer.models import build_mnist_cnn
from inferry_trainer.progress import TrainingProgress, format_seconds
from inferry_trainer.report import render_report
from inferry_trainer.run_folder import check_run_folder, write_run_folder
from inferry_trainer.train import make_deterministic, train_model
from inferry_trainer.workflow import Say


def train_run(config: RunConfig, *, out: Path, data_dir: Path | None, overwrite: bool, say: Say) -> Evaluation:
    """Train and evaluate a model, and leave a run folder.

    Args:
        config: the same config gives the same model on the same machine.
        out: the run folder.
        data_dir: where the data set's files are; None looks in the usual places.
        overwrite: replace a model that is there.
        say: told what happens, a line at a time.

    Raises:
        TrainerError: what was refused, before training wherever that can be known.
    """
    check_run_folder(out, overwrite=overwrite)
    if data_dir is not None and not takes_files(config.dataset):
        say(f"note: {config.dataset} is read from no files, so --data-dir is not used")
    dataset = load_dataset(
        config.dataset, data_dir=data_dir, validation_images=config.validation_images, seed=config.seed
    )
    say(
        f"data: {config.dataset} from {dataset.source}: {len(dataset.train)} training, "
        f"{len(dataset.validation)} validation, {len(dataset.test)} test images"
    )
    description = describe_run(config, dataset)

    make_deterministic(config.seed)
    height, width, channels = dataset.train.images.shape[1:]
    model = build_mnist_cnn((height, width, channels), classes=len(dataset.labels))
    say(
        f"training: {model.name}, {model.count_params():,} parameters, recipe {config.recipe}, "
        f"epochs {config.epochs}, batches of {config.batch_size}, seed {config.seed}"
    )
    progress = TrainingProgress(config.epochs, steps=-(-len(dataset.train) // config.batch_size))
    wall, cpu = time.monotonic(), _cpu_s()
    history = train_model(model, dataset, config, on_epoch=progress.epoch, on_step=progress.step)
    wall, cpu = time.monotonic() - wall, _cpu_s() - cpu

    evaluation = evaluate_probabilities(predict_probabilities(model, dataset.test.images), dataset.test.labels)
    metrics = {
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        "test_images": evaluation.images,
        "test_correct": evaluation.correct,
        "validation_accuracy": history[-1].val_accuracy,
        "train_images": len(dataset.train),
        "validation_images": len(dataset.validation),
        "parameters": int(model.count_params()),
        "train_wall_s": round(wall, 3),
        "train_cpu_s": round(cpu, 3),
    }
    write_run_folder(
        out,
        model=model,
        history=history,
        test=dataset.test,
        description=description,
        metrics=metrics,
        report=render_report(description, history, evaluation, metrics),
        calibration=choose_calibration_images(dataset.train, seed=config.seed),
    )
    say(
        f"test accuracy {evaluation.accuracy:.4f} ({evaluation.correct} of {evaluation.images}), "
        f"loss {evaluation.loss:.4f}, trained in {format_seconds(wall)}"
    )
    say(f"run folder: {out} (report: {out / 'report.html'})")
    return evaluation


def _cpu_s() -> float:
    """Seconds of CPU that this process has used, all threads together."""
    times = os.times()
    return times.user + times.system
