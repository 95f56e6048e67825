"""What a gate measured, and how a manifest and a person are told."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferry_proto import manifest_pb2


@dataclass(frozen=True)
class GateResult:
    """A gate that was passed, or that does not apply.

    Attributes:
        gate: its name, the same in manifests, messages and errors.
        figures: by name; those that end in `_limit` say what another may be.
        reason: why it does not apply; empty where it was passed.
        note: what a person should know although it was passed; empty for nothing.
    """

    gate: str
    figures: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    note: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.gate}: not applicable: {self.reason}"
        figures = "".join(f", {name} {value:.4g}" for name, value in self.figures.items())
        return f"{self.gate}: passed{figures}" + (f": {self.note}" if self.note else "")

    def to_manifest(self) -> manifest_pb2.Gate:
        """The gate as a manifest records it."""
        outcome = manifest_pb2.Gate.NOT_APPLICABLE if self.reason else manifest_pb2.Gate.PASSED
        return manifest_pb2.Gate(
            name=self.gate, outcome=outcome, figures=dict(self.figures), reason=self.reason or self.note
        )
