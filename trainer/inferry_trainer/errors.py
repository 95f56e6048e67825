"""Everything the trainer refuses, each with a message that says what was expected and what came."""

from collections.abc import Sequence

_NAMED_AT_MOST = 5


def name_some(names: Sequence[str]) -> str:
    """The first names, and how many more there are: a message stays a line."""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more


class TrainerError(Exception):
    """What a user can put right; the command line prints its message as one line."""


class ConfigError(TrainerError):
    """A setting outside its range, or a combination that does not exist."""


class DatasetError(TrainerError):
    """A data set that is missing, damaged, or not the one it is taken for."""


class RunFolderError(TrainerError):
    """A run folder that cannot be written, or that does not hold a finished run."""


class TrainingError(TrainerError):
    """Training that cannot go on: its loss is no longer a number."""


class ExportError(TrainerError):
    """A Keras model that cannot be converted to ONNX."""


class GateError(TrainerError):
    """A model that may not be published, or should not have been: which gate refused it, and with what figures."""

    def __init__(self, gate: str, message: str) -> None:
        super().__init__(f"gate {gate}: {message}")
        self.gate = gate
        self.message = message


class PublishError(TrainerError):
    """A version that could not be put into the model repository."""
