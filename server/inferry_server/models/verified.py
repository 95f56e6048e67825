"""The manifest of a version, and its checksums compared with the very bytes that are served."""

from pathlib import Path

from inferry_proto.files import read_file
from inferry_proto.golden import MOST_GOLDEN_BYTES, GoldenSamples, GoldenSamplesError, parse_golden_samples
from inferry_proto.manifest import MANIFEST_FILE, ManifestError, read_manifest, verify_files
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_proto.model_source import ModelSource
from inferry_server.errors import ModelLoadError


def read_verified(folder: Path, source: ModelSource) -> tuple[ModelManifest | None, GoldenSamples | None]:
    """The manifest of a version with its golden samples; None where there are none.

    Args:
        folder: the version's.
        source: its model, with every file that was read for it.

    Raises:
        ModelLoadError: the manifest or the samples cannot be read, a file is not the one that was published, or the
            model was read from a file without a checksum.
    """
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return None, None
        golden = _read_golden(folder, manifest)
        verify_files(folder, manifest, {**source.files, **golden})  # guard: proof-checksums
        for name in source.files.keys() - {file.name for file in manifest.files}:  # guard: proof-model-itself
            raise ManifestError(f"the manifest of {folder} has no checksum for {name}")
        samples = [parse_golden_samples(data, folder / name) for name, data in golden.items()]
    except (ManifestError, GoldenSamplesError) as error:
        raise ModelLoadError(str(error)) from error
    return manifest, samples[0] if samples else None


def _read_golden(folder: Path, manifest: ModelManifest) -> dict[str, bytes]:
    """The bytes of the golden samples by their file's name; empty where the manifest names none."""
    if not manifest.HasField("golden_samples"):
        return {}
    name = manifest.golden_samples.file
    if Path(name).name != name or not name:  # guard: paths-golden-samples
        raise ManifestError(
            f"{folder / MANIFEST_FILE} has golden_samples.file {name!r}; expected the name of a file beside it"
        )
    try:
        return {name: read_file(folder / name, most_bytes=MOST_GOLDEN_BYTES)}
    except OSError as error:
        raise ManifestError(f"{folder / name} cannot be read as golden samples: {error}") from error
