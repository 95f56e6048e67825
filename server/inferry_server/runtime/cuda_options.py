"""How sessions compute on a GPU, and the options by which ONNX Runtime is told so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferry_server.runtime.providers import CPU, CUDA, TENSORRT

CUDNN_SEARCHES = ("heuristic", "exhaustive", "default")

ProviderOptions = tuple[str, dict[str, str]]


@dataclass(frozen=True)
class CudaOptions:
    """Options that are chosen once, for all models.

    Attributes:
        gpu_mem_limit_bytes: the most that ONNX Runtime's arena of one instance may take; 0: no limit.
        cudnn_conv_algo_search: `heuristic` asks cuDNN, the same kernels at every start; `exhaustive`
            measures all of them, in every batch size, when a model loads; `default` takes cuDNN's default.
        tf32: round the inputs of float32 products to 10 bits of mantissa. Faster, and another result.
        cuda_graphs: record each batch size once and replay it, where the model allows.
        prefer_nhwc: lay pictures out with channels last, as cuDNN's kernels for float16 want them: `on`, `off`,
            or `auto`, which does so for models in float16. Measured on an H200, with graphs: ResNet-50 in
            float16 +33 % at 32 images, the chapter's network for MNIST in float32 -22 %.
    """

    gpu_mem_limit_bytes: int = 0
    cudnn_conv_algo_search: str = "heuristic"
    tf32: bool = False
    cuda_graphs: bool = True
    prefer_nhwc: str = "auto"

    def without_graphs(self) -> "CudaOptions":
        """The same options, for a model that cannot be recorded."""
        return replace(self, cuda_graphs=False)

    def for_precision(self, precision: str) -> "CudaOptions":
        """The same options with `auto` decided, by the precision in a model's manifest; empty where there is none."""
        chosen = ("on" if precision == "float16" else "off") if self.prefer_nhwc == "auto" else self.prefer_nhwc
        return replace(self, prefer_nhwc=chosen)


def provider_options(
    providers: Sequence[str], options: CudaOptions, *, device_id: int, stream: int
) -> list[ProviderOptions]:
    """The providers with their options, as ONNX Runtime takes them.

    Args:
        providers: in order of preference.
        options: those of all models.
        device_id: as CUDA counts the visible devices.
        stream: handle of the instance's own stream, on which copies and kernels follow one another.
    """
    made = {CPU: {}, CUDA: _cuda(options, device_id, stream), TENSORRT: _tensorrt(options, device_id, stream)}
    return [(provider, made[provider]) for provider in providers]


def _cuda(options: CudaOptions, device_id: int, stream: int) -> dict[str, str]:
    chosen = {
        "device_id": str(device_id),
        "user_compute_stream": str(stream),
        # The arena grows by what is asked for: doubling would take memory from models that load later.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": options.cudnn_conv_algo_search.upper(),
        "use_tf32": str(int(options.tf32)),
        "enable_cuda_graph": str(int(options.cuda_graphs)),
        "prefer_nhwc": str(int(options.prefer_nhwc == "on")),
    }
    if options.gpu_mem_limit_bytes:
        chosen["gpu_mem_limit"] = str(options.gpu_mem_limit_bytes)
    return chosen


def _tensorrt(options: CudaOptions, device_id: int, stream: int) -> dict[str, str]:
    chosen = {"device_id": str(device_id), "user_compute_stream": str(stream)}
    if options.gpu_mem_limit_bytes:
        chosen["trt_max_workspace_size"] = str(options.gpu_mem_limit_bytes)
    return chosen
