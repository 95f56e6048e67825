"""Reading a Keras model's file, and what is needed for it."""

import importlib
import sys
from pathlib import Path

from inferry_trainer.errors import ConfigError

_CAUSE = "Exception encountered:"
_LONGEST = 300


def import_module(name: str) -> None:
    """Import a user's module, from the working folder too, as `python -m` would find it.

    Raises:
        ConfigError: it is not there, or fails.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:  # a console script has its own folder there instead
        sys.path.insert(0, folder)
    try:
        importlib.import_module(name)
    except Exception as error:  # a user's module raises what it likes
        where = ""
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            hint = f"; name it {Path(name).stem!r}, without path and suffix" if name.endswith(".py") else ""
            where = f"; it was looked for in {folder} and on PYTHONPATH{hint}"
        raise ConfigError(f"--import {name}: {type(error).__name__}: {error}{where}") from error


def reason_of(error: Exception) -> str:
    """Why Keras could not load a file, in one line: it says so last, behind the settings of the layer concerned."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "Could not locate class" in text:
        name = text.partition("Could not locate class '")[2].partition("'")[0]
        return (
            f"it has the layer {name!r}, which is not one of Keras' own; name the Python module that registers it "
            "(@keras.saving.register_keras_serializable) with --import"
        )
    if "`Lambda` layer" in text and "unsafe" in text:
        return (
            "it has a Lambda layer, whose code lies in the file and which Keras runs only for those who trust it; if "
            "you do, name with --import a module that calls keras.config.enable_unsafe_deserialization(), or save the "
            "model with a registered layer in its place"
        )
    what, found, cause = text.rpartition(_CAUSE)
    if found:
        return f"{cause.strip()[:_LONGEST]} (Keras: {what.strip()[: _LONGEST // 3]} ...)"
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 3]} ... {text[-2 * _LONGEST // 3 :]}"
