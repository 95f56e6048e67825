"""The guards of what is served: proofs before serving, versions and labels, start and stop."""

from mutants.mutant import Mutant

_SERVER = "server/inferry_server"
_LOADING = f"{_SERVER}/models/loading.py"
_MANAGER = f"{_SERVER}/models/manager.py"
_APP = f"{_SERVER}/app.py"
_TEST_LOADING = ("tests/server/models/test_loading.py",)
_TEST_MANAGER = ("tests/server/models/test_manager.py",)

MODELS = (
    Mutant("proof: checksums", _LOADING, "            verify_files(path, manifest)\n", "", _TEST_LOADING),
    Mutant(
        "proof: the model itself has a checksum",
        _LOADING,
        "if model_file not in {file.name for file in manifest.files}:",
        "if False:",
        _TEST_LOADING,
    ),
    Mutant(
        "proof: golden samples",
        f"{_SERVER}/models/checks.py",
        "if not difference <= self.tolerance:",
        "if False:",
        _TEST_LOADING,
    ),
    Mutant(
        "proof: a tolerance for what computes",
        f"{_SERVER}/models/checks.py",
        "if provider not in recorded.tolerances:",
        "if False:",
        _TEST_LOADING,
    ),
    Mutant("proof: the manifest's signature", _LOADING, "if recorded != signature:", "if False:", _TEST_LOADING),
    Mutant(
        "proof: batched models answer row by row",
        f"{_SERVER}/models/checks.py",
        "        if batched:\n",
        "        if False:\n",
        ("tests/contract/test_protocol.py::test_a_model_whose_free_axes_are_no_rows_runs_one_request_at_a_time",),
    ),
    Mutant(
        "proof: a checksum is of the file's bytes",
        "proto/inferry_proto/manifest.py",
        "if actual != expected:",
        "if actual.size_bytes != expected.size_bytes:",
        ("tests/proto/test_manifest.py",),
    ),
    Mutant(
        "paths: a manifest lists files of its own folder",
        "proto/inferry_proto/manifest.py",
        "if Path(expected.name).name != expected.name:",
        "if False:",
        ("tests/proto/test_manifest.py",),
    ),
    Mutant(
        "paths: a model's name leads to a folder of the repository",
        f"{_SERVER}/models/repository.py",
        "if not name or Path(name).name != name or",
        "if not name or",
        _TEST_MANAGER,
    ),
    Mutant(
        "versions: the old one answers while its files are loaded anew",
        _MANAGER,
        "if before is None or before.served is None:\n            self._registry",
        "if True:\n            self._registry",
        _TEST_MANAGER,
    ),
    Mutant(
        "versions: a bad exchange changes nothing",
        _MANAGER,
        "if before is not None and before.served is not None:\n                logger",
        "if False:\n                logger",
        _TEST_MANAGER,
    ),
    Mutant(
        "versions: what failed leaves others answering",
        _MANAGER,
        "(failed and before is not None and before.served is not None)",
        "False",
        _TEST_MANAGER,
    ),
    Mutant(
        "versions: a request that meets a closed queue looks again",
        f"{_SERVER}/services/versions.py",
        "if find() is version:",
        "if True:",
        ("tests/server/services/test_versions.py",),
    ),
    Mutant(
        "versions: a server that goes away is not asked for ever",
        f"{_SERVER}/services/versions.py",
        "if find() is version:",
        "if find() is not version:",
        ("tests/server/services/test_versions.py",),
    ),
    Mutant(
        "traffic: a label whose version does not answer gets none",
        f"{_SERVER}/models/registry.py",
        "if weight and (entry := self.versions.get(str(self.labels[label]))) is not None and entry.served",
        "if weight",
        _TEST_MANAGER,
    ),
    Mutant(
        "traffic: an id always goes the same way",
        f"{_SERVER}/models/traffic.py",
        "/ 2**32 if request_id else turn",
        "/ 2**32 if not request_id else turn",
        ("tests/server/models/test_traffic.py",),
    ),
    Mutant(
        "start: ready only with its models",
        _APP,
        "            self._manager.load_all(folders, stop_requested)\n",
        "            self.readiness.enter(Phase.READY)\n            self._manager.load_all(folders, stop_requested)\n",
        ("tests/server/test_lifecycle.py",),
    ),
    Mutant(
        "start: a version is served only when it has proved itself",
        _LOADING,
        "        plan, latency, instances = prove(plan, sessions)\n",
        "        from inferry_server.runtime.instances import make_instance\n"
        "        latency = LatencyModel(plan.policy.max_batch_size)\n"
        "        instances = [make_instance(one, plan.devices, plan.signature, plan.steps) for one in sessions]\n",
        _TEST_LOADING,
    ),
    Mutant(
        "stop: not ready while draining",
        _APP,
        "        self.readiness.enter(Phase.DRAINING)\n",
        "",
        ("tests/server/test_lifecycle.py",),
    ),
    Mutant(
        "stop: what was accepted is finished",
        _APP,
        "self._transport.stop(self._settings.drain_timeout_s)",
        "self._transport.stop(0.0)",
        (
            "tests/contract/test_error_table_busy.py"
            "::test_a_server_that_goes_away_finishes_what_it_has_and_is_unavailable_to_what_is_new",
        ),
    ),
    Mutant(
        "stop: there is no way back",
        f"{_SERVER}/lifecycle.py",
        "if phase.value > self._phase.value:",
        "if phase is not self._phase:",
        ("tests/server/test_lifecycle.py",),
    ),
    Mutant(
        "control: loading from outside only where allowed",
        f"{_SERVER}/services/repository.py",
        "if not self._allowed:",
        "if False:",
        ("tests/contract/test_error_table.py",),
    ),
)
