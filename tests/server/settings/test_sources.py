"""Where settings come from: precedence, the file, and what is no setting."""

import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.addresses import Address
from inferry_server.errors import StartError
from inferry_server.settings.settings import ENVIRONMENT_PREFIX, PROVIDERS, Settings
from inferry_server.settings.sources import read_settings, read_sources
from inferry_server.telemetry.logs import LOG_FORMATS, LOG_LEVELS

# What Kubernetes sets in every pod for Services named `inferry` and `inferry-canary`.
SERVICE_LINKS = {
    "INFERRY_SERVICE_HOST": "10.96.0.7",
    "INFERRY_SERVICE_PORT": "8001",
    "INFERRY_SERVICE_PORT_GRPC": "8001",
    "INFERRY_PORT": "tcp://10.96.0.7:8001",
    "INFERRY_PORT_8001_TCP": "tcp://10.96.0.7:8001",
    "INFERRY_PORT_8001_TCP_PROTO": "tcp",
    "INFERRY_PORT_8001_TCP_PORT": "8001",
    "INFERRY_PORT_8001_TCP_ADDR": "10.96.0.7",
    "INFERRY_CANARY_SERVICE_HOST": "10.96.0.8",
    "INFERRY_CANARY_PORT": "udp://10.96.0.8:53",
}


def write(folder: Path, text: str) -> str:
    path = folder / "inferry.toml"
    path.write_text(text)
    return str(path)


def addresses() -> st.SearchStrategy[Address]:
    return st.builds(Address, st.sampled_from(["127.0.0.1", "::1", "localhost"]), st.integers(0, 65535))


def accepted_settings() -> st.SearchStrategy[Settings]:
    """Any settings that are accepted."""
    return st.builds(
        Settings,
        repository=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map(
            lambda name: Path("/models") / name
        ),
        grpc_address=addresses(),
        http_address=addresses(),
        provider=st.sampled_from(PROVIDERS),
        instance_count=st.integers(1, 8),
        max_batch_size=st.integers(1, 64),
        latency_objective_ms=st.none() | st.floats(0.001, 1e6),
        drain_delay_s=st.floats(0, 86_400),
        log_format=st.sampled_from(LOG_FORMATS),
        log_level=st.sampled_from(LOG_LEVELS),
        strict=st.booleans(),
    )


@pytest.mark.parametrize("sources", ["000", "001", "010", "011", "100", "101", "110", "111"])
def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path, sources: str) -> None:
    flag, variable, file = (source == "1" for source in sources)
    config = write(tmp_path, "max_batch_size = 5\n" if file else "")
    flags = {"repository": "models", "config": config} | ({"max_batch_size": "7"} if flag else {})
    environment = {"INFERRY_MAX_BATCH_SIZE": "6"} if variable else {}
    read = read_sources(flags, environment)
    expected, origin = (
        (7, "flag --max-batch-size") if flag
        else (6, "environment variable INFERRY_MAX_BATCH_SIZE") if variable
        else (5, f"file {config}") if file
        else (32, None)
    )  # fmt: skip
    assert read.settings().max_batch_size == expected
    assert read.origins.get("max_batch_size") == origin


def test_the_file_is_named_by_a_flag_or_else_by_the_environment(tmp_path: Path) -> None:
    config = write(tmp_path, 'repository = "models"\nstrict = true\nlatency_objective_ms = 20\n')
    settings = read_settings({}, {"INFERRY_CONFIG": config})
    assert (settings.strict, settings.latency_objective_ms) == (True, 20.0)
    with pytest.raises(StartError, match=r"absent\.toml cannot be read: No such file"):
        read_settings({"config": str(tmp_path / "absent.toml")}, {"INFERRY_CONFIG": config})


def test_a_repository_named_in_the_file_lies_beside_the_file(tmp_path: Path) -> None:
    config = write(tmp_path, 'repository = "models"')
    assert read_settings({"config": config}, {}).repository == tmp_path / "models"
    assert read_settings({"config": config, "repository": "models"}, {}).repository == Path("models")
    config = write(tmp_path, 'repository = "/srv/models"')
    assert read_settings({"config": config}, {}).repository == Path("/srv/models")


def test_what_a_file_sets_can_be_unset(tmp_path: Path) -> None:
    config = write(tmp_path, "latency_objective_ms = 20\nstrict = true")
    flags = {"repository": "models", "config": config, "latency_objective_ms": "none", "strict": "False"}
    settings = read_settings(flags, {})
    assert (settings.latency_objective_ms, settings.strict) == (None, False)


@given(accepted_settings())
def test_what_is_printed_is_a_file_that_says_the_same(tmp_path_factory: pytest.TempPathFactory, any_: Settings) -> None:
    texts = {name: "none" if value is None else str(value) for name, value in _values(any_).items()}
    printed = read_sources(texts, {}).describe()
    config = write(tmp_path_factory.mktemp("config"), printed)
    assert read_settings({"config": config}, {}) == any_


def _values(settings: Settings) -> dict[str, Any]:
    return {setting.name: getattr(settings, setting.name) for setting in fields(Settings)}


def test_the_printed_page_has_every_setting_with_its_origin(tmp_path: Path) -> None:
    config = write(tmp_path, "drain_delay_s = 2")
    lines = read_sources({"config": config, "strict": "true"}, {"INFERRY_LOG_LEVEL": "debug"}).describe().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(asdict(Settings(repository=Path())))[1:]
    assert tomllib.loads("\n".join(lines))["drain_delay_s"] == 2.0
    origins = {line.split()[0]: line.partition("  # ")[2].strip() for line in lines[1:]}
    assert origins["strict"] == "flag --strict"
    assert origins["log_level"] == "environment variable INFERRY_LOG_LEVEL"
    assert origins["drain_delay_s"] == f"file {config}"
    assert origins["max_batch_size"] == "default"
    assert lines[0].split() == ["#", "repository", "#", "not", "set"]


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("INFERRY_MAX_BATCHSIZE", "INFERRY_MAX_BATCH_SIZE"),
        ("INFERRY_LATENCY_OBJECTIVE", "INFERRY_LATENCY_OBJECTIVE_MS"),
        ("INFERRY_PORT", "INFERRY_"),  # not Kubernetes': its value is no URL
        ("INFERRY_GRPC_PORT", "INFERRY_GRPC_ADDRESS"),
        ("INFERRY_CERTIFICATE", "INFERRY_TLS_CERTIFICATE"),  # the clients', but it could be meant for this server
    ],
)
def test_an_unknown_variable_stops_the_start_and_the_nearest_is_named(variable: str, nearest: str) -> None:
    with pytest.raises(StartError, match=f"environment variable {variable} is no setting; the nearest is {nearest}"):
        read_settings({"repository": "models"}, {variable: "8001"})


def test_variables_of_kubernetes_and_of_other_programs_stop_nothing() -> None:
    others = {"INFERRY_DATA": "/data", "INFERRY_LOAD_NAME": "mnist", "PATH": "/bin", "INFERRYX": ""}
    others |= {"INFERRY_BENCH_CACHE": "/cache", "INFERRY_RAY_PYTHON": "/ray/bin/python", "INFERRY_PEERS": "/peers"}
    others |= {"INFERRY_SERVER": "a:8001,b:8001", "INFERRY_SERVER_NAME": "inferry.test"}  # the clients'
    assert read_settings({"repository": "models"}, SERVICE_LINKS | others) == Settings(repository=Path("models"))


def test_no_setting_is_hidden_by_what_kubernetes_sets() -> None:
    for setting in fields(Settings):
        variable = ENVIRONMENT_PREFIX + setting.name.upper()
        with pytest.raises(StartError, match=f"the nearest is {variable}$"):
            read_settings({"repository": "models"}, {variable + "X": "1"})


def test_an_unknown_key_of_the_file_stops_the_start_and_the_nearest_is_named(tmp_path: Path) -> None:
    for text, message in (
        ("max_batchsize = 8", "'max_batchsize' is no setting; the nearest is 'max_batch_size'"),
        ("max-batch-size = 8", "'max-batch-size' is no setting; the nearest is 'max_batch_size'"),
        ("[server]\nstrict = true", "'server' is no setting; the nearest is"),
        ('config = "other.toml"', "'config' is no setting"),
    ):
        with pytest.raises(StartError, match=message):
            read_settings({"config": write(tmp_path, text)}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size = '8'", "setting max_batch_size .*file .*expected a whole number, not '8'"),
        ("max_batch_size = true", "expected a whole number, not True"),
        ("max_batch_size = 0", "max_batch_size is 0; expected 1 to 65536"),
        ("drain_delay_s = nan", "expected a number, not 'nan'"),
        ("latency_objective_ms = 'soon'", "expected a number, not 'soon'"),
        ("strict = 1", "expected true or false, not 1"),
        ("provider = 3", "expected a text, not 3"),
        ("grpc_address = 8001", "expected a text, not 8001"),
        ("grpc_address = '8001'", "expected HOST:PORT"),
        ("repository", "is not TOML"),
    ],
)
def test_a_wrong_value_in_the_file_names_the_setting_and_what_was_expected(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(StartError, match=message):
        read_settings({"repository": "models", "config": write(tmp_path, text)}, {})


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "inferry.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StartError, match=r"inferry\.toml is not TOML"):
        read_settings({"config": str(tmp_path / "inferry.toml")}, {})


@pytest.mark.parametrize("url", ["s3://bucket/models", "gs://b/m", "as://account/container", "https://host/m"])
def test_a_repository_in_an_object_store_is_refused_with_the_way_out(tmp_path: Path, url: str) -> None:
    for flags in ({"repository": url}, {"config": write(tmp_path, f'repository = "{url}"')}):
        with pytest.raises(StartError, match=f"setting repository .*not the URL '{url}'; mount the bucket as a folder"):
            read_settings(flags, {})
