"""A version that is being served, and everything requests need to know of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferry_proto.datatypes import Arrays
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import channel_count, check_preprocessing
from inferry_proto.variants import NONE, Accepted
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InvalidRequestError, UnsupportedModelError
from inferry_server.executing.batcher import DynamicBatcher
from inferry_server.models.checks import GoldenCheck
from inferry_server.models.class_labels import Labels
from inferry_server.models.reshaping import Reshaping
from inferry_server.models.sizes import reply_bytes
from inferry_server.models.variants import MadeOf
from inferry_server.runtime.cuda_options import CudaOptions
from inferry_server.runtime.instance import Instance
from inferry_server.signature import Signature
from inferry_server.telemetry.statistics import VersionObserver, VersionStatistics

_IMAGE_RANK = 4  # N, H, W, C


@dataclass(frozen=True)
class ServedVersion:
    """One version that answers requests.

    Attributes:
        signature: as clients see it.
        reshaping: what stands between it and the model's own.
        max_request_rows: the most rows a request may carry; 0 where the model has no batch dimension.
        labels: of the classes of each output that has some.
        preprocessing: how pictures become its input; None where none was recorded or can be told.
        provider: ONNX Runtime's execution provider.
        observer: told what becomes of its requests.
        policy: the limits of its queue and of one run.
        parallel_runs: runs of it that are computed at the same time, as one batch.
        instance_count: batches of it that can run at the same time.
        instances: what computes it.
        golden: what it can be checked with while it is served; None where nothing was recorded.
        end_runs: lets every run fail, those under way and all later ones.
        device_options: how a GPU computes it; None on anything but CUDA.
        gpus: the devices it computes on; none on the CPU.
        share_of_cores: that its batches take if all of its instances compute; 0 on a GPU, and it may be above 1.
        model_file: the file it was loaded from.
        model_sha256: of the bytes that compute.
        latency_objective_s: the deadline of requests that carry none; None: the server's applies.
        made_of: what it is a variant of, by its manifest; None where it is none.
        accepts: the precisions of the variants that may answer requests which do not say so themselves.
        give_outputs_back: has ONNX Runtime give back what it keeps of large outputs; takes as long as a run of a row.
    """

    model: str
    version: str
    signature: Signature
    reshaping: Reshaping
    max_request_rows: int
    labels: Labels
    preprocessing: Preprocessing | None
    provider: str
    batcher: DynamicBatcher
    observer: VersionObserver
    policy: BatchingPolicy
    parallel_runs: int
    instance_count: int
    instances: tuple[Instance, ...]
    golden: GoldenCheck | None
    end_runs: Callable[[], None]
    device_options: CudaOptions | None
    gpus: tuple[int, ...]
    share_of_cores: float
    model_file: str
    model_sha256: str
    latency_objective_s: float | None
    made_of: MadeOf | None = None
    accepts: Accepted = NONE
    give_outputs_back: Callable[[], None] = lambda: None

    @property
    def capacity_rows_per_s(self) -> float:
        """Rows that full batches would compute a second; 0 before any was measured."""
        return self.batcher.capacity_rows_per_s()

    @property
    def score_labels(self) -> tuple[str, ...]:
        """Of the classes of the first output, which scores pictures; empty where it has none."""
        return self.labels.get(self.signature.outputs[0].name, ()) if self.signature.outputs else ()

    @property
    def statistics(self) -> VersionStatistics:
        """What it has done since it was loaded."""
        return self.observer.statistics

    def close(self, timeout_s: float) -> bool:
        """Finish what was accepted, then give back the memory of its devices.

        Returns:
            Whether everything was computed in time; if not, an instance may still run, and keeps its memory.
        """
        finished = self.batcher.close(timeout_s)
        if finished:
            for instance in self.instances:
                instance.close()
        else:
            self.end_runs()  # nobody waits for them any more
        return finished

    def check_reply_size(self, inputs: Arrays) -> None:
        """Refuse a request whose reply would be too large, before it is computed.

        Args:
            inputs: of the request, by name.

        Raises:
            InvalidRequestError: says how many bytes it would have at least.
        """
        least, limit = reply_bytes(self.signature, inputs), self.policy.max_reply_bytes
        if least > limit:  # guard: sizes-request-outputs
            raise InvalidRequestError(
                f"the outputs of model {self.model!r} for this request have at least {least} bytes; expected at most "
                f"{limit} (setting max_reply_bytes): ask for fewer rows at once"
            )

    def require_preprocessing(self) -> Preprocessing:
        """How pictures become its input.

        Raises:
            UnsupportedModelError: it takes no pictures.
        """
        if self.preprocessing is None:
            raise UnsupportedModelError(
                f"model {self.model!r} {self.signature} does not classify pictures: expected one UINT8 input "
                "[-1, height, width, 1 or 3] and an output [-1, classes]; send it tensors through ModelInfer"
            )
        return self.preprocessing


def close_all(versions: Sequence[ServedVersion], timeout_s: float, clock: Callable[[], float] = time.monotonic) -> bool:
    """Close versions at the same time: all of them have the same moment to finish by.

    Returns:
        Whether everything that was accepted was computed in time.
    """
    ends = clock() + timeout_s
    for version in versions:
        version.batcher.refuse_new()
    finished = [version.close(max(0.0, ends - clock())) for version in versions]  # every one, whatever the others say
    return all(finished)


def usable_preprocessing(signature: Signature, recorded: Preprocessing | None) -> Preprocessing | None:
    """How pictures become a model's input: as recorded, or a plain resize where only the shape is known.

    Returns:
        None where the model is no classifier of uint8 pictures.

    Raises:
        ValueError: what is recorded does not produce what the model takes.
    """
    if not _classifies_pictures(signature):
        return None
    _, height, width, channels = signature.inputs[0].shape
    if recorded is None:
        mode = Preprocessing.GRAYSCALE if channels == 1 else Preprocessing.RGB
        return Preprocessing(color_mode=mode, height=height, width=width, filter=Preprocessing.BILINEAR)
    made = (recorded.height, recorded.width, channel_count(recorded))
    if made != (height, width, channels):
        raise ValueError(f"the preprocessing makes pixels of shape {made}; the model takes {(height, width, channels)}")
    check_preprocessing(recorded)
    return recorded


def _classifies_pictures(signature: Signature) -> bool:
    if len(signature.inputs) != 1 or not signature.outputs or not signature.has_batch_dimension:
        return False
    image, scores = signature.inputs[0], signature.outputs[0]
    return (
        image.datatype.name == "UINT8"
        and len(image.shape) == _IMAGE_RANK
        and -1 not in image.shape[1:]
        and image.shape[3] in (1, 3)
        and scores.datatype.dtype.kind == "f"
        and len(scores.shape) == len(("N", "K"))
    )
