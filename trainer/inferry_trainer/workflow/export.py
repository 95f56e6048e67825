"""An export: from a run folder to a proven, published version."""

from pathlib import Path

from inferry_trainer.publish import check_model_name, publish_version
from inferry_trainer.release import Release, write_release
from inferry_trainer.run_folder import read_run_folder
from inferry_trainer.workflow import Say


def export_run(run_folder: Path, *, repository: Path, model_name: str | None, say: Say) -> Path:
    """Export a run's model to ONNX, prove it, and publish it as the model's next version.

    Args:
        run_folder: what `train_run` left.
        repository: of models; made where it does not exist.
        model_name: the data set's name where None.
        say: told what happens, a line at a time.

    Returns:
        The folder of the published version.

    Raises:
        TrainerError: what was refused; nothing is published then.
    """
    if model_name is not None:
        check_model_name(model_name)  # before the work
    run = read_run_folder(run_folder)
    name = model_name or run.description.config.dataset

    def write(folder: Path) -> None:
        _say_what_was_measured(write_release(folder, run, model_name=name), say)

    version = publish_version(repository, name, write)
    say(f"published: {version}")
    return version


def _say_what_was_measured(release: Release, say: Say) -> None:
    parity = release.parity
    say(f"exported: {release.model_bytes / 1e6:.1f} MB of ONNX, uint8 pixels to probabilities, any batch size")
    say(
        f"verified: over {parity.images} test images Keras and ONNX Runtime differ by {parity.max_abs_difference:.2g} "
        f"at most (limit {parity.limit:g}); labels differ on {parity.label_mismatches} ({parity.label_ties} ties)"
    )
    say(f"test accuracy: Keras {release.keras_accuracy:.4f}, ONNX Runtime {release.onnx_accuracy:.4f}")
