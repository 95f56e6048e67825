"""A verification: what was published is held against whatever evidence there is."""

from pathlib import Path

from inferry_trainer.errors import GateError, TrainerError
from inferry_trainer.publishing.catalog import find_versions, manifest_of
from inferry_trainer.publishing.evidence import EvidenceOptions, find_evidence
from inferry_trainer.publishing.signatures import check_signature
from inferry_trainer.publishing.verification import verify_version
from inferry_trainer.workflow import Say


def verify_path(path: Path, options: EvidenceOptions, *, say: Say, model_key: Path | None = None) -> None:
    """Verify a version, every version of a model, or a whole repository.

    Args:
        path: of one of them.
        options: where the evidence is.
        say: told what was measured, a line a gate.
        model_key: public key that everything must be signed with; None: signatures are not looked at.

    Raises:
        TrainerError: there is nothing to verify, or a version fails; all versions are looked at first, and
            the message names each failing version with its gate.
    """
    failures: list[GateError] = []
    versions = find_versions(path)
    for version in versions:
        say(f"{version}:")
        try:
            if model_key is not None:
                check_signature(version, model_key)
                say("  signature: passed")
            results = verify_version(version, find_evidence(manifest_of(version), options))
        except GateError as error:
            say(f"  {error.gate}: FAILED")
            failures.append(GateError(error.gate, f"{version}: {error.message}"))
            continue
        for result in results:
            say(f"  {result}")
        not_repeated = sum(bool(result.reason) for result in results)
        say(f"  {len(results) - not_repeated} gates passed, {not_repeated} not repeated")
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise TrainerError(f"{len(failures)} of {len(versions)} versions failed: {'; '.join(map(str, failures))}")
