"""`inferry-train export`: convert a model, prove it, publish it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say
from inferry_trainer.errors import ConfigError
from inferry_trainer.quiet import import_tensorflow_quietly

PIXELS, OUTPUTS = ("0-1", "0-255", "-1-1"), ("probabilities", "logits")

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Put the command's flags into the parser."""
    export = commands.add_parser(
        "export",
        parents=[common],
        help="export a run or any Keras model to ONNX, prove and publish it",
        description="Export a model to ONNX, prove that nothing changed, publish it as the next version.",
    )
    export.add_argument("source", type=Path, metavar="RUN|MODEL.keras", help="a run folder, or a Keras model's file")
    export.add_argument("--repository", type=Path, required=True, metavar="DIR", help="the model repository")
    export.add_argument("--model", metavar="NAME", help="the model's name there (default: the data set's)")
    export.add_argument(
        "--precision",
        type=lambda text: tuple(text.split(",")),
        default=("float32",),
        metavar="LIST",
        help="float32, float16, int8: each published as a model of its own, NAME-int8 (default: float32)",
    )
    export.add_argument(
        "--max-accuracy-drop",
        type=float,
        default=0.1,
        metavar="POINTS",
        help="percentage points of test accuracy that reduced precision may cost (default: %(default)s)",
    )
    export.add_argument(
        "--max-difference",
        type=float,
        default=1e-5,
        metavar="D",
        help="accepted between probabilities of Keras' and the float32 graph's, whatever rounding is "
        "(default: %(default)s)",
    )
    export.add_argument("--label", metavar="LABEL", help="point this label, canary say, at what is published")
    export.add_argument(
        "--keep-traffic",
        action="store_true",
        help="with --label: requests that name no version stay with the versions that they go to now; without it they "
        "go to what is published, where version_labels.json has no traffic",
    )
    export.add_argument(
        "--scaled-jpeg",
        type=Path,
        metavar="FOLDER",
        help="have large JPEGs decoded at a fraction of their size, some times faster, if that costs no more accuracy "
        "than --max-accuracy-drop on these pictures: as large as those that will be sent, a folder for each label",
    )
    export.add_argument(
        "--sign", type=Path, metavar="KEY", help="sign what is published with this elliptic curve key (PEM)"
    )
    export.add_argument(
        "--license",
        dest="license_expression",
        metavar="SPDX",
        help="name the model's license in its bill of materials: Apache-2.0, 'MIT OR CC-BY-4.0', LicenseRef-Ours",
    )
    keras = export.add_argument_group("any Keras model")
    keras.add_argument(
        "--labels", metavar="a,b,c|FILE", help="its classes in the order of its outputs, or a file of them"
    )
    keras.add_argument("--data", type=Path, metavar="FOLDER", help="test images: a folder of pictures for each label")
    keras.add_argument("--unverified", action="store_true", help="publish without data: its accuracy stays unknown")
    keras.add_argument(
        "--pixels", choices=PIXELS, help="what it takes pixels to be (default: 0-255 where it scales them, else 0-1)"
    )
    keras.add_argument("--outputs", choices=OUTPUTS, help="what it gives (default: as its last layer says)")
    keras.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="training images, for int8: pictures in any folders below"
    )
    keras.add_argument("--import", dest="module", metavar="MODULE", help="a Python module that registers its layers")
    keras.add_argument(
        "--image-size", metavar="SIDE|HxW", help="what it takes, where it takes pictures of any size: 224, or 160x120"
    )
    export.set_defaults(do=_export)


def _export(chosen: argparse.Namespace) -> None:
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.export.keras_source import KerasSource, is_saved_model  # brings TensorFlow: not for --help
    from inferry_trainer.workflow.export import ExportOptions, export_keras, export_run

    options = ExportOptions(
        repository=chosen.repository,
        model_name=chosen.model,
        precisions=chosen.precision,
        max_accuracy_drop=chosen.max_accuracy_drop,
        max_difference=chosen.max_difference,
        label=chosen.label,
        keep_traffic=chosen.keep_traffic,
        scaled_jpeg=chosen.scaled_jpeg,
        sign=chosen.sign,
        license_expression=chosen.license_expression,
    )
    about = {
        name: getattr(chosen, name)
        for name in ("labels", "data", "pixels", "outputs", "calibration", "module", "image_size")
    }
    if chosen.source.is_dir() and not is_saved_model(chosen.source):
        _refuse_what_a_run_says_itself(chosen, about)
        export_run(chosen.source, options, say=say)
    else:
        export_keras(KerasSource(chosen.source, unverified=chosen.unverified, **about), options, say=say)


def _refuse_what_a_run_says_itself(chosen: argparse.Namespace, about: dict[str, object]) -> None:
    given = [name for name, value in about.items() if value is not None] + ["unverified"] * chosen.unverified
    if given:
        raise ConfigError(f"{chosen.source} is a run and says itself what --{given[0]} would; leave it out")
