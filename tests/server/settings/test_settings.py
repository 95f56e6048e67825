from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.addresses import Address, AnyAddress, UnixAddress, parse_address, parse_any_address
from inferry_server.errors import StartError
from inferry_server.settings.contradictions import warnings
from inferry_server.settings.settings import ENVIRONMENT_PREFIX, Settings
from inferry_server.settings.sources import read_settings


def test_a_flag_wins_over_the_environment_which_wins_over_the_default() -> None:
    environment = {"INFERRY_REPOSITORY": "/models", "INFERRY_MAX_BATCH_SIZE": "8", "INFERRY_STRICT": "true"}
    settings = read_settings({"max_batch_size": "4"}, environment)
    assert (settings.repository, settings.max_batch_size, settings.strict) == (Path("/models"), 4, True)
    assert settings.grpc_address == Address("127.0.0.1", 8001)


def test_every_setting_can_be_read_from_text() -> None:
    pair = {"tls_certificate": "server.crt", "tls_private_key": "server.key"}
    texts = {"latency_objective_ms": "100", "max_connection_age_s": "60", "strict": "false", "verbose": "0"}
    texts |= {"trace_endpoint": "http://localhost:4317", "http_hosts": "models.example, inferry"}
    texts |= pair | {"tls_client_ca": "clients.crt", "repository": "models"}
    for setting in fields(Settings):
        text = texts.get(setting.name, str(setting.default))
        chosen = pair | {"repository": "models", setting.name: text}
        environment = {ENVIRONMENT_PREFIX + name.upper(): value for name, value in chosen.items()}
        assert getattr(read_settings({}, environment), setting.name) is not None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("max_batch_size", "0", "max_batch_size is 0; expected 1 to 65536"),
        ("max_batch_size", "many", "max_batch_size .*expected a whole number, not 'many'"),
        ("max_request_rows", "31", "max_request_rows is 31; expected at least max_batch_size"),
        ("max_queue_size", "255", "max_queue_size is 255; expected at least max_request_rows"),
        ("max_total_queue_bytes", "536870911", "max_total_queue_bytes is 536870911; expected 0, or at least"),
        ("drain_timeout_s", "-1", "drain_timeout_s is -1.0; expected 0 to 86400"),
        ("drain_timeout_s", "nan", "expected a number, not 'nan'"),
        ("drain_delay_s", "inf", "expected a number, not 'inf'"),
        ("latency_objective_ms", "0", "latency_objective_ms is 0.0; expected 0.001 to"),
        ("max_message_bytes", "99999999999", "max_message_bytes is 99999999999; expected 1 to"),
        ("intra_op_num_threads", "999999999999", "expected 0 to 1024"),
        ("max_queue_delay_us", "9" * 30, "max_queue_delay_us .*expected 0 to"),
        ("drain_delay_s", "1e300", "expected 0 to 86400"),
        ("provider", "tpu", "provider is tpu; expected one of auto, cpu, cuda"),
        ("tls_certificate", "server.crt", "tls_certificate and tls_private_key belong together"),
        ("tls_client_ca", "clients.crt", "tls_client_ca has no effect without tls_certificate"),
        ("transport", "http", "transport is http; expected one of completion_queue, aio"),
        ("log_format", "xml", "log_format is xml; expected one of text, json"),
        ("strict", "perhaps", "expected true or false, not 'perhaps'"),
        ("grpc_address", "8001", "expected HOST:PORT"),
        ("trace_endpoint", "localhost:4317", "trace_endpoint is localhost:4317; expected http://HOST:PORT or https"),
        ("trace_endpoint", "http://localhost", "expected http://HOST:PORT"),
        ("trace_sample_ratio", "1.5", "trace_sample_ratio is 1.5; expected 0 to 1"),
        (
            "http_hosts",
            "example.org:80",
            "http_hosts is example.org:80; expected names without ports, sep",
        ),
        ("http_hosts", "a,,b", "expected names without ports"),
        ("http_hosts", "", "expected names without ports"),
        ("http_hosts", "https://example.org", "expected names without ports"),
        ("http_hosts", "*.example.org", "expected names without ports"),
        ("http_address", "localhost:99999", "between 0 and 65535, not 99999"),
    ],
)
def test_a_wrong_value_names_the_setting_the_value_and_the_range(name: str, text: str, message: str) -> None:
    with pytest.raises(StartError, match=message):
        read_settings({"repository": "models", name: text}, {})
    with pytest.raises(StartError, match=message):
        read_settings({"repository": "models"}, {ENVIRONMENT_PREFIX + name.upper(): text})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_queue_delay_us": 500, "max_batch_size": 1},
            "500 and has no effect while max_batch_size is 1",
        ),
        ({"trace_sample_ratio": 0.5}, "0.5 and has no effect without trace_endpoint"),
        ({"max_queue_delay_us": 5000, "latency_objective_ms": 5.0}, "expected a delay below the objective"),
    ],
)
def test_a_setting_without_effect_stops_the_start(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StartError, match=message):
        Settings(repository=Path("models"), **settings)


@pytest.mark.parametrize(
    ("instances", "threads", "warned"), [(1, 0, False), (4, 2, False), (4, 0, False), (3, 3, True), (9, 0, True)]
)
def test_threads_far_beyond_the_cores_are_allowed_with_a_warning(instances: int, threads: int, warned: bool) -> None:
    settings = Settings(repository=Path("models"), instance_count=instances, intra_op_num_threads=threads)
    assert bool(warnings(settings, cores=4)) is warned


def test_without_a_repository_the_message_says_how_to_name_one() -> None:
    with pytest.raises(StartError, match="--repository DIR or INFERRY_REPOSITORY"):
        read_settings({}, {})


@given(st.sampled_from(["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"]), st.integers(0, 65535))
def test_an_address_reads_back_as_it_is_written(host: str, port: int) -> None:
    assert parse_address(str(Address(host, port))) == Address(host, port)


@pytest.mark.parametrize("text", ["", ":", ":80", "host", "host:", "::1:80", "host:-1", "host:\uff18", "host:1.5"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("unix:/run/inferry.sock", UnixAddress("unix", "/run/inferry.sock")),
        ("unix:///run/inferry.sock", UnixAddress("unix", "/run/inferry.sock")),
        ("unix:inferry.sock", UnixAddress("unix", "inferry.sock")),
        ("unix-abstract:inferry", UnixAddress("unix-abstract", "inferry")),
        ("[::1]:8001", Address("::1", 8001)),
    ],
)
def test_grpc_may_listen_at_unix_sockets(text: str, read: AnyAddress) -> None:
    assert parse_any_address(text) == read == parse_any_address(str(read))


@pytest.mark.parametrize(
    "text", ["unix:", "unix://", "unix://host/x", "unix:/" + "x" * 107, "unix:/a\0b", "unix-abstract:"]
)
def test_what_is_no_unix_socket_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a(n absolute)? path"):
        parse_any_address(text)


@pytest.mark.parametrize(
    "chosen",
    [
        {"tf32": True},
        {"cuda_graphs": False},
        {"prefer_nhwc": "on"},
        {"gpu_mem_limit_bytes": 1 << 30},
        {"cudnn_conv_algo_search": "exhaustive"},
    ],
)
def test_what_only_a_gpu_can_do_is_refused_on_the_cpu(chosen: dict[str, Any]) -> None:
    Settings(repository=Path("models"), provider="cuda", **chosen)
    Settings(repository=Path("models"), **chosen)
    with pytest.raises(StartError, match=f"setting {next(iter(chosen))} is .* no effect while provider is cpu"):
        Settings(repository=Path("models"), provider="cpu", **chosen)
