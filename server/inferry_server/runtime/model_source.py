"""Reads a model's bytes as batch jobs do, and refuses a model for which there is no memory."""

from pathlib import Path

from inferry_proto.model_source import ModelSource, ModelSourceError, read_source
from inferry_server.errors import ModelLoadError
from inferry_server.runtime.memory import available_bytes


def read_model(path: Path) -> ModelSource:
    """A model, with the weights that lie in files beside it.

    Raises:
        ModelLoadError: a file is missing or cannot be read, lies outside the model's folder, or there is no memory
            for it.
    """
    try:
        return read_source(path, available_bytes=available_bytes)
    except ModelSourceError as error:
        raise ModelLoadError(str(error)) from error
