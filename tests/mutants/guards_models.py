"""The guards of what is served: proofs before serving, versions and labels, start and stop."""

from mutants.mutant import Mutant

_TEST_LOADING = ("tests/server/models/test_loading.py",)
_TEST_MANAGER = ("tests/server/models/test_manager.py",)

MODELS = (
    Mutant("proof-checksums", "proof: checksums", "", _TEST_LOADING),
    Mutant("proof-model-itself", "proof: the model itself has a checksum", "if False:", _TEST_LOADING),
    Mutant("proof-golden-samples", "proof: golden samples", "if False:", _TEST_LOADING),
    Mutant("proof-tolerance-computes", "proof: a tolerance for what computes", "if False:", _TEST_LOADING),
    Mutant("proof-manifest-signature", "proof: the manifest's signature", "if False:", _TEST_LOADING),
    Mutant(
        "proof-batched-models",
        "proof: batched models answer row by row",
        "if False:",
        ("tests/server/models/test_warm_up.py",),
    ),
    Mutant(
        "graphs-of-shown-rows",
        "graphs: only what answers row by row is recorded",
        "if False:",
        ("tests/server/runtime/test_recorded_serving.py",),
    ),
    Mutant(
        "device-pads-rows-only",
        "devices: only what answers row by row is padded",
        "if step == rows:",
        ("tests/server/runtime/test_recorded_serving.py",),
    ),
    Mutant(
        "proof-checksum-file",
        "proof: a checksum is of the file's bytes",
        "if actual.size_bytes != expected.size_bytes:",
        ("tests/proto/test_manifest.py",),
    ),
    Mutant(
        "paths-manifest-lists",
        "paths: a manifest lists files of its own folder",
        "if False:",
        ("tests/proto/test_manifest.py",),
    ),
    Mutant(
        "paths-model-name",
        "paths: a model's name leads to a folder of the repository",
        'if not name or name.startswith(".") or "\\0" in name:',
        _TEST_MANAGER,
    ),
    Mutant(
        "versions-old-serves",
        "versions: the old one serves while its files are loaded anew",
        "if True:",
        _TEST_MANAGER,
    ),
    Mutant(
        "versions-passing-fault",
        "versions: what the machine was short of is tried again",
        "if False:",
        ("tests/server/models/test_signed.py",),
    ),
    Mutant("labels-told-once", "versions: unreadable labels are logged once", "if True:", _TEST_MANAGER),
    Mutant("versions-bad-exchange", "versions: a bad exchange changes nothing", "if False:", _TEST_MANAGER),
    Mutant(
        "versions-failed-before",
        "versions: what failed before still leaves others serving",
        "failed = bool(failures)",
        _TEST_MANAGER,
    ),
    Mutant(
        "versions-failed-leaves",
        "versions: what failed leaves others serving",
        "if version.version in wanted or False:",
        _TEST_MANAGER,
    ),
    Mutant(
        "versions-request-meets",
        "versions: a request that meets a closed queue looks again",
        "if True:",
        ("tests/server/models/test_swapped_versions.py",),
    ),
    Mutant(
        "versions-server-goes",
        "versions: a server that goes away is not asked for ever",
        "if find() is not found:",
        ("tests/server/models/test_swapped_versions.py",),
    ),
    Mutant(
        "traffic-label-whose",
        "traffic: a label whose version does not serve gets none",
        "return {\n    label: weight\n    for label, weight in self.traffic.items()\n    if weight\n}",
        _TEST_MANAGER,
    ),
    Mutant(
        "traffic-id-always",
        "traffic: an id always goes the same way",
        "share = zlib.crc32(request_id.encode()) / 2**32 if not request_id else turn * _GOLDEN_RATIO % 1",
        ("tests/server/models/test_traffic.py",),
    ),
    Mutant(
        "start-ready-only",
        "start: ready only with its models",
        "self.readiness.enter(Phase.READY)\n{guard}",
        ("tests/server/test_lifecycle.py",),
    ),
    Mutant(
        "start-version-served",
        "start: a version is served only when it has proved itself",
        "from inferry_server.runtime.instances import make_instance\nlatency = LatencyModel(plan.policy.max_batch_size)\ninstances = [make_instance(one, plan.devices, plan.signature, plan.steps) for one in sessions]",
        _TEST_LOADING,
    ),
    Mutant("stop-not-ready", "stop: not ready while draining", "", ("tests/server/test_lifecycle.py",)),
    Mutant(
        "stop-was-accepted",
        "stop: what was accepted is finished",
        "answered = self._transport.stop(0.0)",
        (
            "tests/contract/test_error_table_busy.py"
            "::test_a_server_that_goes_away_finishes_what_it_has_and_is_unavailable_to_what_is_new",
        ),
    ),
    Mutant(
        "stop-no-way", "stop: there is no way back", "if phase is not self._phase:", ("tests/server/test_lifecycle.py",)
    ),
    Mutant(
        "control-loading-outside",
        "control: loading from outside only where allowed",
        "if False:",
        ("tests/contract/test_error_table.py",),
    ),
)
