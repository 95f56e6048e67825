"""What a run was made from: `config.json`, from which the manifest's provenance is written later."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import Dataset
from inferry_trainer.environment import git_revision, library_versions, machine
from inferry_trainer.errors import TrainerError


@dataclass(frozen=True)
class RunDescription:
    """Everything that decided a run's result.

    Attributes:
        config: its settings.
        labels: line i names class i.
        preprocessing: what a picture becomes before the model sees it.
        dataset_sha256: over all arrays, so over the split too.
        dataset_source: where the data was found, for people.
        train_images: how many.
        validation_images: how many.
        test_images: how many.
        library_versions: by distribution name.
        git_revision: of this code; empty outside a checkout.
        created_at: RFC 3339, UTC.
        machine: what computed it; empty where that was not recorded.
        notes: what is particular about this copy of the data.
    """

    config: RunConfig
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    dataset_sha256: str
    dataset_source: str
    train_images: int
    validation_images: int
    test_images: int
    library_versions: Mapping[str, str]
    git_revision: str
    created_at: str
    machine: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back equal."""
        content = {name: value for name, value in vars(self).items() if name not in ("config", "preprocessing")}
        preprocessing = json_format.MessageToDict(self.preprocessing, preserving_proto_field_name=True)
        return {
            "config": asdict(self.config),
            **content,
            "labels": [*self.labels],
            "notes": [*self.notes],
            "preprocessing": preprocessing,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunDescription":
        """What `to_json` gave.

        Raises:
            ValueError: a field is missing, unknown or of another kind.
        """
        try:
            fields = dict(content)
            return cls(
                config=RunConfig.from_json(fields.pop("config")),
                labels=tuple(str(label) for label in fields.pop("labels")),
                notes=tuple(str(note) for note in fields.pop("notes", ())),
                preprocessing=json_format.ParseDict(fields.pop("preprocessing"), Preprocessing()),
                **fields,
            )
        except (KeyError, TypeError, TrainerError, json_format.ParseError) as error:
            raise ValueError(f"not a run's description: {type(error).__name__}: {error}") from error


def describe_run(config: RunConfig, dataset: Dataset) -> RunDescription:
    """What a run that starts now is made from."""
    return RunDescription(
        config=config,
        labels=dataset.labels,
        preprocessing=dataset.preprocessing,
        dataset_sha256=dataset.sha256,
        dataset_source=dataset.source,
        train_images=len(dataset.train),
        validation_images=len(dataset.validation),
        test_images=len(dataset.test),
        library_versions=library_versions(),
        git_revision=git_revision(),
        created_at=timestamp(),
        machine=machine(),
        notes=dataset.notes,
    )


def timestamp() -> str:
    """Now, as manifests and configs record it: RFC 3339, UTC, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
