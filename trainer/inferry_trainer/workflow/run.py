"""A run: from a data set to a folder with a trained and evaluated model."""

from pathlib import Path
from typing import Any

import keras

from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import Dataset, FilePart, load_dataset, takes_files
from inferry_trainer.evaluation.evaluate import Evaluation, evaluate_probabilities, predict_probabilities
from inferry_trainer.evaluation.mistakes import worst_mistakes
from inferry_trainer.evaluation.model_card import render_model_card
from inferry_trainer.evaluation.report import render_report
from inferry_trainer.models import build_network
from inferry_trainer.training.batches import training_pipeline_batches
from inferry_trainer.training.calibration import choose_calibration_images
from inferry_trainer.training.checkpoint import Checkpoint
from inferry_trainer.training.description import RunDescription, describe_run
from inferry_trainer.training.progress import TrainingProgress, format_seconds
from inferry_trainer.training.records import EpochRecord
from inferry_trainer.training.resume import CHECKPOINT, TENSORBOARD, begin_run, resume_run, run_folder_for
from inferry_trainer.training.run_folder import write_run_folder
from inferry_trainer.training.train import best_epoch, check_precision, make_deterministic, train_model
from inferry_trainer.workflow import Say


def train_run(
    config: RunConfig, *, out: Path, data_dir: Path | None, overwrite: bool = False, resume: bool = False, say: Say
) -> Evaluation:
    """Train and evaluate a model, and leave a run folder.

    Args:
        config: the same config gives the same model on the same machine.
        out: the run folder.
        data_dir: where the data set's files are; None looks in the usual places.
        overwrite: replace a model, or an interrupted run, that is there.
        resume: go on with the run that was interrupted there, from its last whole epoch.
        say: told what happens, a line at a time.

    Raises:
        TrainerError: what was refused, before training wherever that can be known.
    """
    check_precision(config)
    with run_folder_for(out, overwrite=overwrite, resume=resume):
        if data_dir is not None and not takes_files(config.dataset):
            say(f"note: {config.dataset} is read from no files, so --data-dir is not used")
        dataset = load_dataset(config, data_dir=data_dir)
        _say_what_was_found(dataset, say)
        description = describe_run(config, dataset)
        make_deterministic(config.seed)
        model = _build(config, dataset)
        checkpoint = resume_run(out, description) if resume else None
        if checkpoint is None:
            begin_run(out, description)
        history = _train(model, dataset, config, out=out, checkpoint=checkpoint, say=say)
        return _finish(_in_float32(model, config, dataset), dataset, description, history, out=out, say=say)


def _say_what_was_found(dataset: Dataset, say: Say) -> None:
    say(
        f"data: {dataset.name} from {dataset.source}: {len(dataset.train)} training, "
        f"{len(dataset.validation)} validation, {len(dataset.test)} test images"
    )
    for note in dataset.notes:
        say(f"note: {note}")


def _build(config: RunConfig, dataset: Dataset) -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if config.mixed_precision else "float32")
    try:
        return build_network(config.network, dataset.image_shape, classes=len(dataset.labels))
    finally:
        keras.config.set_dtype_policy(before)


def _train(
    model: Any, dataset: Dataset, config: RunConfig, *, out: Path, checkpoint: Checkpoint | None, say: Say
) -> list[EpochRecord]:
    done = len(checkpoint.records) if checkpoint else 0
    say(
        f"training: {model.name}, {model.count_params():,} parameters, recipe {config.recipe}, "
        f"{config.epochs} epochs, batches of {config.batch_size}, seed {config.seed}"
        + (f"; going on after epoch {done}" if checkpoint else "")
    )
    progress = TrainingProgress(config.epochs, steps=-(-len(dataset.train) // config.batch_size))
    history = train_model(
        model,
        dataset,
        config,
        checkpoints=out / CHECKPOINT,
        resume_from=checkpoint,
        logs=out / TENSORBOARD,
        on_epoch=progress.epoch,
        on_step=progress.step,
    )
    if len(history) < config.epochs:
        say(
            f"stopped early: the validation loss has not fallen for {config.patience} epochs; "
            f"the model is that of epoch {best_epoch(history)}"
        )
    return history


def _in_float32(model: Any, config: RunConfig, dataset: Dataset) -> Any:
    """The trained weights in a model that computes in float32 and carries no optimizer: what is kept and exported."""
    plain = build_network(config.network, dataset.image_shape, classes=len(dataset.labels))
    plain.set_weights(model.get_weights())
    return plain


def _finish(
    model: Any, dataset: Dataset, description: RunDescription, history: list[EpochRecord], *, out: Path, say: Say
) -> Evaluation:
    """Look at the test set, once, and write everything down."""
    config = description.config
    test = dataset.test.prepare()
    outputs = predict_probabilities(model, test.images)
    evaluation = evaluate_probabilities(outputs, test.labels, groups=dataset.test_groups)
    wall = sum(record.wall_s for record in history)
    taken = history[best_epoch(history) - 1] if config.patience else history[-1]
    metrics = evaluation.to_metrics() | {
        "training_pipeline_test_accuracy": _training_pipeline_accuracy(model, dataset, evaluation),
        "validation_accuracy": taken.val_accuracy,
        "train_images": len(dataset.train),
        "validation_images": len(dataset.validation),
        "parameters": int(model.count_params()),
        "epochs": len(history),
        "train_wall_s": round(wall, 3),
        "train_cpu_s": round(sum(record.cpu_s for record in history), 3),
    }
    write_run_folder(
        out,
        model=model,
        history=history,
        test=test,
        description=description,
        metrics=metrics,
        report=render_report(description, history, evaluation, metrics, worst_mistakes(outputs, test)),
        model_card=render_model_card(description, evaluation, metrics),
        calibration=choose_calibration_images(dataset.train, seed=config.seed),
    )
    say(
        f"test accuracy {evaluation.accuracy:.4f} ({evaluation.correct} of {evaluation.images}), "
        f"loss {evaluation.loss:.4f}, trained in {format_seconds(wall)}"
    )
    say(f"run folder: {out} (report: {out / 'report.html'})")
    return evaluation


def _training_pipeline_accuracy(model: Any, dataset: Dataset, evaluation: Evaluation) -> float:
    """The accuracy on test images as TensorFlow decodes and resizes them; images in memory are the same for both."""
    if not isinstance(dataset.test, FilePart):
        return evaluation.accuracy
    outputs = model.predict(training_pipeline_batches(dataset.test), verbose=0)
    answers = (outputs[:, 0] > 0) if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return float((answers == dataset.test.labels).mean())
