"""A model's bytes, read as clients without a server read them, and no more than the server has memory for."""

from pathlib import Path

from inferry_proto.model_source import ModelSource, ModelSourceError, read_source
from inferry_server.errors import ModelLoadError
from inferry_server.runtime.memory import available_bytes


def read_model(path: Path) -> ModelSource:
    """A model with the weights that lie beside it; arguments as of `read_source`.

    Raises:
        ModelLoadError: a file is missing or cannot be read, lies outside the model's folder, or there is no memory
            for it.
    """
    try:
        return read_source(path, available_bytes=available_bytes)
    except ModelSourceError as error:
        raise ModelLoadError(str(error)) from error
