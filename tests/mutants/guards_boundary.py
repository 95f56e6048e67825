"""The guards around one model: what it holds costs nothing but itself."""

from mutants.mutant import Mutant

_TEST_BOUNDARY = ("tests/server/models/test_boundary.py",)

BOUNDARY = (
    Mutant("boundary-version", "boundary: an error that no check foresaw fails one version", "raise", _TEST_BOUNDARY),
    Mutant("boundary-model", "boundary: a folder that cannot be followed costs one model", "raise", _TEST_BOUNDARY),
    Mutant("boundary-unknown-unload", "boundary: unknown names are not remembered", "if False:", _TEST_BOUNDARY),
    Mutant("boundary-name", "boundary: names that are not UTF-8 are not served", "if False:", _TEST_BOUNDARY),
)
