"""How ONNX Runtime is told to compute."""

from pathlib import Path

from inferry_server.runtime.session import load_session
from testkit import onnx_models


def test_threads_wait_awake_within_a_batch_and_asleep_for_the_next_one(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    (model,) = tmp_path.glob("*/1/model.onnx")
    session = load_session(model, providers=["CPUExecutionProvider"], intra_op_num_threads=2)
    told = session._session.get_session_options().get_session_config_entry
    assert told("session.intra_op.allow_spinning") == "1"
    assert 0 < int(told("session.intra_op.spin_duration_us")) <= 1000
    assert told("session.force_spinning_stop") == "1"
