"""Files of a model repository: each is read, or refused with the error that its reader documents."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.json_values import with_other_value
from fuzz.mutation import TOKENS, corpus, mutated, rng_of
from fuzz.target import Check, Target, expect
from inferry_proto.golden import GoldenSamplesError, largest_difference, parse_golden_samples
from inferry_proto.manifest import MANIFEST_FILE, ManifestError, read_manifest, verify_files, write_manifest
from inferry_proto.version_labels import LABELS_FILE, VersionLabelsError, is_label, read_labels_and_traffic
from inferry_server.models.config_pbtxt import CONFIG_FILE, ConfigError, read_model_settings


def check_manifest(folder: Path) -> bool:
    try:
        manifest = read_manifest(folder)
    except ManifestError:
        return False
    expect(manifest is not None, "the manifest is there, and was read as missing")
    assert manifest is not None
    write_manifest(folder, manifest)
    again = read_manifest(folder)
    same = again is not None and again.SerializeToString(deterministic=True) == manifest.SerializeToString(
        deterministic=True
    )
    expect(same, f"the manifest was written and reads differently: {manifest} and {again}")
    try:
        verify_files(folder, manifest)
    except ManifestError:
        return True
    expect(all(file.name == MANIFEST_FILE for file in manifest.files), "files that are not there were verified")
    return True


def check_labels(folder: Path) -> bool:
    try:
        message = read_labels_and_traffic(folder)
    except VersionLabelsError:
        return False
    expect(all(is_label(label) for label in message.labels), f"labels that are none: {message}")
    expect(set(message.traffic) <= set(message.labels), f"weights without labels: {message}")
    return True


def check_config(folder: Path) -> bool:
    try:
        settings = read_model_settings(folder)
    except ConfigError:
        return False
    objective = settings.latency_objective_ms
    expect(settings.max_batch_size is None or settings.max_batch_size >= 0, f"rows below 0: {settings}")
    expect(objective is None or (math.isfinite(objective) and objective > 0), f"no objective: {settings}")
    return True


def check_golden(data: bytes) -> bool:
    try:
        samples = parse_golden_samples(data, Path("golden.npz"))
    except GoldenSamplesError:
        return False
    counts = {len(array) for array in (*samples.inputs.values(), *samples.outputs.values())}
    expect(counts == {samples.count} and samples.count > 0, f"arrays of {counts} samples were accepted")
    size = sum(array.nbytes for array in (*samples.inputs.values(), *samples.outputs.values()))
    expect(size <= 2 * len(data) + (1 << 20), f"{len(data)} bytes became {size}")
    largest_difference(samples.outputs, samples.outputs)
    return True


def _file_target(name: str, file: str, check: Callable[[Path], bool]) -> Target:
    """A text file, written into a model's folder."""

    def mutate(seed: int) -> bytes:
        rng = rng_of(name, seed)
        text = rng.choice(kept)
        if file.endswith(".json") and rng.random() < 0.5:
            value = with_other_value(with_other_value(json.loads(text), rng), rng)
            return mutated(json.dumps(value).encode(), rng, tokens=TOKENS, most=1)
        return mutated(text, rng, tokens=(*TOKENS, *(word for text in kept for word in text.split())))

    @contextmanager
    def opened() -> Iterator[Check]:
        with TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            model.mkdir()

            def check_bytes(data: bytes) -> bool:
                (model / file).write_bytes(data)
                return check(model)

            yield check_bytes

    kept = corpus(name)
    return Target(name, mutate, opened)


def _mutate_golden(seed: int) -> bytes:
    rng = rng_of("golden", seed)
    return mutated(rng.choice(corpus("golden")), rng)


@contextmanager
def _golden_opened() -> Iterator[Check]:
    yield check_golden


MANIFESTS = _file_target("manifests", MANIFEST_FILE, check_manifest)
LABELS = _file_target("labels", LABELS_FILE, check_labels)
CONFIGS = _file_target("configs", CONFIG_FILE, check_config)
GOLDEN = Target("golden", _mutate_golden, _golden_opened)
