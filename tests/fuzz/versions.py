"""Versions whose manifest was tampered with: served and able to answer, or refused for a reason that a check gives."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.json_values import with_other_value
from fuzz.mutation import corpus, rng_of
from fuzz.target import Check, Target, expect
from inferry_proto.manifest import MANIFEST_FILE
from inferry_proto.preprocessing import PictureError, channel_count, prepare_image
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ModelLoadError
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.repository import VersionFolder
from inferry_server.models.version import ServedVersion
from inferry_server.runtime.providers import CPU
from inferry_server.telemetry.metrics import ServerMetrics
from testkit.onnx_models import save_brightness

MODEL = "brightness"
_UNEXPECTED = "loading failed with"  # what no check foresaw
_CLOSE_S = 5.0
_POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=4, max_queue_size=8, max_queue_bytes=1 << 20)


def _mutate(seed: int) -> bytes:
    rng = rng_of("versions", seed)
    value = json.loads(corpus("manifests")[0])
    if rng.random() < 0.3:
        fields = ("left", "top", "width", "height", "picture_width", "picture_height")
        value["preprocessing"]["crop"] = {field: rng.choice((0, 1, 4, 8, 16, 2**32 - 1)) for field in fields}
    for _ in range(rng.randrange(1, 3)):
        value = with_other_value(value, rng)
    return json.dumps(value).encode()


@contextmanager
def _opened() -> Iterator[Check]:
    with TemporaryDirectory() as folder:
        version = save_brightness(Path(folder), name=MODEL)
        true = json.loads((version / MANIFEST_FILE).read_text())["files"]
        known = json.loads(corpus("manifests")[0])["files"]

        def check(case: bytes) -> bool:
            for ours, theirs in zip(true, known, strict=True):  # another release of ONNX writes other bytes
                for said in ("sha256", "size_bytes"):
                    case = case.replace(f'"{theirs[said]}"'.encode(), f'"{ours[said]}"'.encode())
            (version / MANIFEST_FILE).write_bytes(case)
            return check_version(version)

        yield check


def check_version(folder: Path) -> bool:
    options = LoadOptions((CPU,), 1, 1, _POLICY, ServerMetrics())
    try:
        served = load_version(VersionFolder(MODEL, 1, folder), options)
    except ModelLoadError as error:
        expect(_UNEXPECTED not in str(error), str(error))
        return False
    try:
        _check_pictures(served)
    finally:
        served.close(_CLOSE_S)
    return True


def _check_pictures(served: ServedVersion) -> None:
    """What is served takes pictures to what its input takes."""
    if served.preprocessing is None:
        return
    spec = served.preprocessing
    for picture in corpus("pictures"):
        try:
            pixels = prepare_image(picture, spec)
        except PictureError:
            continue
        wanted = served.signature.inputs[0].shape[1:]
        expect(pixels.shape == (spec.height, spec.width, channel_count(spec)), f"{pixels.shape} by {spec}")
        expect(pixels.shape == wanted, f"pictures become {pixels.shape}; the model takes {wanted}")


VERSIONS = Target("versions", _mutate, _opened)
