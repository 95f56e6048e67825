"""How one version is going to be served: what its files, its settings and the server say together."""

from dataclasses import dataclass, field
from pathlib import Path

from inferry_proto.golden import GoldenSamples
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_proto.model_source import ModelSource
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import ladder
from inferry_server.models.checks import GoldenCheck, read_golden_check
from inferry_server.models.model_settings import ModelSettings
from inferry_server.models.repository import VersionFolder
from inferry_server.models.reshaping import Reshaping
from inferry_server.runtime.instances import Devices
from inferry_server.signature import Signature


@dataclass(frozen=True)
class VersionPlan:
    """One version, before it serves.

    Attributes:
        manifest: None where there is none.
        signature: with the lengths that its settings fix.
        batched: whether its requests have rows.
        policy: the limits of its queue and batches.
        reshaping: what stands between its shapes and those that clients see.
        source: the model's bytes, which were checked.
        golden: the samples that the manifest names.
    """

    folder: VersionFolder
    settings: ModelSettings
    manifest: ModelManifest | None
    signature: Signature
    batched: bool
    policy: BatchingPolicy
    devices: Devices
    reshaping: Reshaping = field(default_factory=Reshaping)
    source: ModelSource | None = None
    golden: GoldenSamples | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """The batch sizes it may see; none where requests have no rows."""
        return ladder(self.policy.max_batch_size) if self.batched else ()

    @property
    def model_path(self) -> Path:
        """The file it is loaded from."""
        return self.folder.path / self.settings.model_file

    @property
    def is_vouched_for(self) -> bool:
        """Whether somebody said that the model takes rows; otherwise its shapes only look like it."""
        return self.manifest is not None or self.settings.max_batch_size is not None

    def golden_check(self, provider: str) -> GoldenCheck | None:
        """What the version's answers can be compared with, now and while it is served; None without samples.

        Raises:
            ModelLoadError: the manifest states no tolerance for this provider.
        """
        if self.manifest is None or self.golden is None:
            return None
        return read_golden_check(
            self.folder.path,
            self.manifest.golden_samples,
            self.golden,
            provider=provider,
            max_batch_size=self.policy.max_batch_size if self.batched else None,
        )
