"""What keeps half a version, a label without one and an empty store from reaching the server beside a copy."""

from mutants.mutant import Mutant

_TEST_SYNC = ("tests/clients/test_sync.py",)

SYNC = (
    Mutant("sync-version-verified", "sync: a version is what its manifest says", "pass", _TEST_SYNC),
    Mutant("sync-version-at-rest", "sync: a version that is still written is not taken", "if False:", _TEST_SYNC),
    Mutant("sync-empty-store", "sync: an empty store empties no copy", "if False:", _TEST_SYNC),
    Mutant("sync-labels", "sync: a label names a version that is there", "return None", _TEST_SYNC),
    Mutant("paths-sync-parts", "sync: no object is written outside the copy", "return True", _TEST_SYNC),
)
