"""What keeps every picture of a batch job in its results exactly once, and old results from mixing with new ones."""

from mutants.mutant import Mutant

_TEST_FAULTS = ("tests/clients/test_batch_faults.py",)
_TEST_FOLDERS = ("tests/clients/test_batch_folders.py",)
_TEST_TARS = ("tests/clients/test_batch_damaged_tars.py",)
_TEST_DAMAGED = ("tests/clients/test_batch_damaged_files.py",)
_TEST_BAD = ("tests/clients/test_batch_bad_inputs.py",)
_TEST_WINDOW = ("tests/clients/test_batch_window.py",)

BATCH_JOBS = (
    Mutant("batch-folder-synced", "batch: a file's name survives a crash of the machine", "", _TEST_FAULTS),
    Mutant("batch-same-job", "batch: a job resumes its own results only", "if False:", _TEST_FOLDERS),
    Mutant("batch-part-digest", "batch: a damaged part is not taken for a whole one", "if False:", _TEST_FOLDERS),
    Mutant("batch-object-kept", "batch: what another job put in a bucket is not replaced", "if False:",
           ("tests/clients/test_batch_stores.py",)),
    Mutant("batch-lease-held", "batch: a job that lost its lease writes nothing", "if False:",
           ("tests/clients/test_batch_stores.py",)),
    Mutant("batch-merged-part-digest", "batch: a damaged part of a shard is not merged", "if False:",
           ("tests/clients/test_batch_shards.py",)),
    Mutant("batch-contents-bound", "batch: a picture that changed is not mixed with old results", "if False:",
           _TEST_FAULTS),
    Mutant("batch-model-bound", "batch: one model answers a whole part", "if False:", _TEST_FAULTS),
    Mutant("batch-gone-bound", "batch: a job does not resume over pictures that are gone", "if False:",
           ("tests/clients/test_batch_incremental.py",)),
    Mutant("batch-listing-kept", "batch: pictures that come or go do not shift into other parts", "if False:",
           _TEST_FAULTS),
    Mutant("batch-max-errors", "batch: too many errors end a job", "if False:", _TEST_FAULTS),
    Mutant("batch-one-decrease", "batch: refusals of one moment are one sign of overload", "if True:", _TEST_WINDOW),
    Mutant("batch-window", "batch: no more requests are under way than the limit", "while False:", _TEST_WINDOW),
    Mutant("batch-decoder-turns", "batch: decoding lets servers on its machine go first", "if False:",
           ("tests/clients/test_batch_pace.py",)),
    Mutant("batch-gives-way", "batch: others on its machine have a core before a job's threads", "if False:",
           ("tests/clients/test_batch_pace.py", "tests/clients/test_batch_decoding.py")),
    Mutant("batch-job-turns", "batch: listing and writing let servers on the machine go first", "if False:",
           ("tests/clients/test_batch_pace.py",)),
    Mutant("batch-shards-mergeable", "batch: no shard is done that cannot be merged", "if False:",
           ("tests/clients/test_batch_arguments.py",)),
    Mutant("batch-onnx-checksums", "batch: no weights are computed with that nobody published", "for name in ():",
           ("tests/clients/test_batch_targets.py",)),
    Mutant("batch-chunks-bounded", "batch: chunks wait in bounded memory", "while False:",
           ("tests/clients/test_batch_pace.py",)),
    Mutant("batch-picture-size", "batch: a giant in an archive is not unpacked", "if False:",
           ("tests/clients/test_batch_inputs.py",)),
    Mutant("batch-inputs-apart", "batch: no picture is in two inputs of a job", "if False:",
           ("tests/clients/test_batch_inputs.py",)),
    Mutant("batch-archive-pinned", "batch: an archive is read as it was listed", "if False:",
           ("tests/clients/test_batch_changing.py",)),
    Mutant("batch-macos-folder", "batch: what macOS keeps beside files is no picture", "if False:", _TEST_BAD),
    Mutant("batch-macos-archive", "batch: nor is it in archives", "if False:", _TEST_BAD),
    Mutant("batch-tar-data-cut", "batch: a tar that ends within a member says so", "if False:", _TEST_TARS),
    Mutant("batch-tar-end", "batch: a tar that was cut between members says so", "elif False:", _TEST_TARS),
    Mutant("batch-tar-forward", "batch: no header of a tar has a size below nothing", "if archive.offset > at:", _TEST_TARS),
    Mutant("batch-tar-header-size", "batch: no header of a tar eats the memory", "if False:", _TEST_TARS),
    Mutant("batch-csv-goes-on", "batch: a broken line of a table is one error", "except ZeroDivisionError as error:",
           _TEST_DAMAGED),
    Mutant("batch-lines-bounded", "batch: no line of a list eats the memory", "if False:", _TEST_DAMAGED),
    Mutant("batch-idx-surplus", "batch: pictures that a header does not promise are told", "if False:", _TEST_DAMAGED),
    Mutant("batch-idx-promise", "batch: no promise of a header keeps the job", "if False:", _TEST_DAMAGED),
    Mutant("batch-zip-hidden", "batch: members that no directory lists are told", "if False:", _TEST_DAMAGED),
    Mutant("batch-patterns-end", "batch: ** stands for folders in folders too", "for folder, folders in ((root, [*found]),):",
           _TEST_BAD),
    Mutant("batch-inputs-go-on", "batch: one bad input of many ends no job", "except ZeroDivisionError as error:",
           _TEST_BAD),
    Mutant("batch-merge-complete", "batch: shards are merged only when all parts are there", "if False:",
           ("tests/clients/test_batch_shards.py",)),
)  # fmt: skip
