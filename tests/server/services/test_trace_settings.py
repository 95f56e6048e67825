"""What is traced can be asked for by everybody; clients change nothing."""

from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from inferry_proto import open_inference_pb2 as pb
from inferry_server.errors import InvalidRequestError, ModelNotFoundError, NotAllowedError
from inferry_server.models.registry import ModelRegistry
from inferry_server.services.trace_settings import TraceSettingsService
from testkit import onnx_models
from testkit.calls import FakeCall
from testkit.servers import running_server


def ask(
    service: TraceSettingsService, settings: dict[str, list[str]] | None = None, *, model: str = ""
) -> dict[str, list[str]]:
    request = pb.TraceSettingRequest(model_name=model)
    for name, value in (settings or {}).items():
        request.settings[name].value.extend(value)
    call = FakeCall()
    service.trace_setting(call, request.SerializeToString())
    response = pb.TraceSettingResponse.FromString(call.messages[0])
    return {name: list(setting.value) for name, setting in response.settings.items()}


def service(*, exported: bool = True, sample_ratio: float = 0.01) -> TraceSettingsService:
    return TraceSettingsService(ModelRegistry(lambda: None), exported=exported, sample_ratio=sample_ratio)


@pytest.mark.parametrize(
    ("exported", "ratio", "level", "rate"),
    [
        (True, 0.01, "TIMESTAMPS", "100"),
        (False, 0.01, "OFF", "100"),
        (True, 1.0, "TIMESTAMPS", "1"),
        (True, 0, "TIMESTAMPS", "0"),
    ],
)
def test_asking_tells_what_is_traced(exported: bool, ratio: float, level: str, rate: str) -> None:
    told = ask(service(exported=exported, sample_ratio=ratio))
    assert (told["trace_mode"], told["trace_level"], told["trace_rate"]) == (["opentelemetry"], [level], [rate])


def test_stating_what_holds_and_clearing_change_nothing() -> None:
    asked = service()
    assert ask(asked, {"trace_rate": ["100"], "trace_level": []}) == ask(asked)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"trace_rate": ["5"]}, NotAllowedError, "'trace_rate' is '100'.*trace_endpoint and trace_sample_ratio"),
        ({"trace_level": ["TIMESTAMPS", "TENSORS"]}, NotAllowedError, "'trace_level'"),
        ({"trace_all": ["1"]}, InvalidRequestError, "'trace_all' is unknown; this server has trace_mode, trace_level"),
    ],
)
def test_a_change_is_refused_by_name(settings: dict[str, list[str]], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(service(), settings)


def test_an_unknown_model_has_no_settings() -> None:
    with pytest.raises(ModelNotFoundError):
        ask(service(), model="nothing")


def test_tritons_client_is_answered(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server, triton.InferenceServerClient(str(server.grpc_address)) as client:
        assert client.get_trace_settings("doubler", as_json=True)["settings"]["trace_level"] == {"value": ["OFF"]}
        with pytest.raises(InferenceServerException, match="FAILED_PRECONDITION"):
            client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
