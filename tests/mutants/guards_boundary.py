"""The guards around one model: what it holds costs nothing but itself."""

from mutants.mutant import Mutant

_TEST_BOUNDARY = ("tests/server/models/test_boundary.py",)
_TEST_ANSWERS = ("tests/contract/test_large_answers.py",)
_TEST_MEMORY = ("tests/server/runtime/test_memory.py",)
_TEST_KEEPER = ("tests/server/runtime/test_memory_keeper.py",)
_TEST_FILES = ("tests/proto/test_files.py",)
_TEST_LOADS = ("tests/server/models/test_load_queue.py",)
_TEST_SIZES = ("tests/server/models/test_sizes.py",)

BOUNDARY = (
    Mutant("boundary-version", "boundary: an error that no check foresaw fails one version", "raise", _TEST_BOUNDARY),
    Mutant("boundary-model", "boundary: a folder that cannot be followed costs one model", "raise", _TEST_BOUNDARY),
    Mutant("boundary-unknown-unload", "boundary: unknown names are not remembered", "if False:", _TEST_BOUNDARY),
    Mutant("boundary-name", "boundary: names that are not UTF-8 are not served", "if False:", _TEST_BOUNDARY),
    Mutant("loads-cancelled", "loads: what was given up is not served", "if True:", _TEST_LOADS),
    Mutant("loads-bounded", "loads: no more wait than may", "if False:", _TEST_LOADS),
    Mutant("loads-dropped", "loads: one that nobody waits for is dropped", "if False:", _TEST_LOADS),
    Mutant("loads-one-at-a-time", "loads: one has the machine for itself at first", "if False:", _TEST_LOADS),
    Mutant(
        "loads-one-of-a-model",
        "loads: changes of one model do not overlap",
        "return next(iter(self._waiting), None)",
        _TEST_LOADS,
    ),
    Mutant("sizes-inputs", "sizes: a model that no request can ask", "if False:", _TEST_SIZES),
    Mutant("sizes-outputs", "sizes: outputs that no message can carry", "if False:", _TEST_SIZES),
    Mutant("answers-bounded", "sizes: outputs that turn out too large", "if False:", _TEST_ANSWERS),
    Mutant("sizes-request-outputs", "sizes: a request whose outputs are too large", "if False:", _TEST_ANSWERS),
    Mutant("sizes-batch-outputs", "sizes: a batch whose outputs are too large", "return plan", _TEST_ANSWERS),
    Mutant("sizes-request-inputs", "sizes: a request that can never be queued", "return plan", _TEST_SIZES),
    Mutant("outputs-kept", "memory: what ONNX Runtime keeps of large outputs is known", "if False:", _TEST_SIZES),
    Mutant("outputs-first", "memory: ONNX Runtime keeps for ever only little", "pass", _TEST_SIZES),
    Mutant("heap-worth-it", "memory: heaps are trimmed where that gains something", "if False:", _TEST_KEEPER),
    Mutant("heap-busy", "memory: no heap is trimmed while the process computes", "return True", _TEST_KEEPER),
    Mutant("heap-futile", "memory: what cannot go back is tried once", "pass", _TEST_KEEPER),
    Mutant("memory-quiet", "memory: nothing is given back while cores are needed", "busy = False", _TEST_KEEPER),
    Mutant("memory-load-bound", "sizes: the bound of a load is not moved", "if True:", _TEST_MEMORY),
    Mutant("sizes-given-back", "sizes: what one large row takes is not kept", "", _TEST_SIZES),
    Mutant("sizes-tried-given-back", "sizes: what trying a version takes is not kept", "pass", _TEST_SIZES),
    Mutant("sizes-tried", "sizes: no more is tried than a bound", "return tuple(sizes)", _TEST_SIZES),
    Mutant("sizes-instances", "sizes: instances for which there is no memory", "if False:", _TEST_SIZES),
    Mutant("sizes-allocations", "sizes: what is allocated while a version loads is bounded", "if True:", _TEST_SIZES),
    Mutant("sizes-warmed", "sizes: a version for whose run there is no memory is not served", "return", _TEST_SIZES),
    Mutant("memory-bound-lifted", "sizes: the bound of a load ends with it", "if False:", _TEST_MEMORY),
    Mutant("sizes-instance-count", "sizes: instances of a model are few", "if False:", _TEST_SIZES),
    Mutant("files-size", "files: no more is read than may be", "if False:", _TEST_FILES),
    Mutant("boundary-reason", "boundary: reasons are short enough to be read", "if False:", _TEST_BOUNDARY),
    Mutant("files-unchanged", "files: none is read half old, half new", "if len(data) != status.st_size:", _TEST_FILES),
    Mutant(
        "files-name",
        "files: a name that none can have is one that cannot be read",
        "except UnicodeDecodeError as error:",
        _TEST_FILES,
    ),
    Mutant("log-one-line", "log: a text is one line", "return text", ("tests/server/telemetry/test_logs.py",)),
    Mutant("files-regular", "files: nobody waits for the writer of a FIFO", "if False:", _TEST_FILES),
    Mutant("golden-size", "golden samples: no more is decompressed than may be", "if False:", _TEST_FILES),
    Mutant("golden-header", "golden samples: no array is larger than its bytes", "if False:", _TEST_FILES),
    Mutant("paths-golden-samples", "paths: golden samples lie in their version's folder", "if False:", _TEST_BOUNDARY),
    Mutant(
        "paths-external-data",
        "paths: weights lie in their model's folder",
        "if False:",
        ("tests/server/models/test_loading.py",),
    ),
)
