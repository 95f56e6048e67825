"""The compose file for one machine agrees with the Dockerfile, the server and Prometheus."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferry_client.cli import build_parser
from inferry_server.settings.sources import read_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    return found


def image_environment() -> dict[str, str]:
    """What the image of the server says to it."""
    return dict(re.findall(r"(INFERRY_(?:REPOSITORY|GRPC_ADDRESS|HTTP_ADDRESS))=(\S+)", DOCKERFILE))


def test_the_file_is_one_of_the_compose_specification() -> None:
    specification_of = pytest.importorskip("compose_spec").PyCompose.from_yaml  # there for Linux on x86-64
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (FOLDER / "compose.yaml").read_text())  # as Compose does first
    specification = specification_of(text)
    specification.validate()
    assert set(specification.service_names()) == set(services())
    with pytest.raises(Exception, match="restrat"):
        specification_of(text.replace("restart:", "restrat:", 1))


def test_images_are_built_from_targets_of_the_dockerfile_and_have_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("server", "load"):
        service = services()[name]
        assert f"FROM {'serving' if name == 'server' else 'runtime'} AS {service['build']['target']}\n" in DOCKERFILE
        assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["image"].endswith(f":{version}")


def test_the_server_reads_its_settings_where_the_models_are_mounted() -> None:
    server = services()["server"]
    settings = read_settings({}, environment=image_environment() | server["environment"])
    (volume,) = server["volumes"]
    assert volume.endswith(f":{settings.repository}:ro")
    assert server["stop_grace_period"] == "40s"
    assert settings.drain_delay_s + settings.drain_timeout_s + 5 <= 40


def test_nothing_is_reachable_from_other_machines() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_prometheus_scrapes_the_servers_http_port() -> None:
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    settings = read_settings({}, environment=image_environment())
    assert prometheus["scrape_configs"][0]["static_configs"] == [{"targets": [f"server:{settings.http_address.port}"]}]
    assert "./prometheus.yml:/etc/prometheus/prometheus.yml:ro" in services()["prometheus"]["volumes"]


def mounted(service: str) -> dict[str, Path]:
    """The files and folders of the repository by the path that a service sees them at."""
    volumes = [one.split(":") for one in services()[service]["volumes"]]
    return {target: (FOLDER / source).resolve() for source, target, *_ in volumes if source.startswith(".")}


def test_prometheus_evaluates_the_rules_of_the_repository() -> None:
    files = mounted("prometheus")
    configuration = Path("/etc/prometheus/prometheus.yml")
    rule_files = yaml.safe_load(files[str(configuration)].read_text())["rule_files"]
    assert [files[str(configuration.parent / name)] for name in rule_files] == [
        ROOT / "deploy/observability/rules.yaml"
    ]


def test_grafana_shows_the_dashboard_with_what_prometheus_has() -> None:
    files, environment = mounted("grafana"), services()["grafana"]["environment"]
    assert all(path.is_file() for path in files.values())
    (provider,) = yaml.safe_load(files["/etc/grafana/provisioning/dashboards/inferry.yaml"].read_text())["providers"]
    boards = {target: path for target, path in files.items() if target.startswith(provider["options"]["path"] + "/")}
    assert set(boards.values()) == {ROOT / "deploy/observability/dashboard.json"}
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in boards
    (source,) = yaml.safe_load(files["/etc/grafana/provisioning/datasources/inferry.yaml"].read_text())["datasources"]
    (board,) = [json.loads(path.read_text()) for path in boards.values()]
    (variable,) = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
    assert source["type"] == variable["query"]
    assert source["isDefault"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert any(one.endswith(f":{port}") for one in services()[host]["ports"])
    interval = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


def test_nobody_can_log_in_to_grafana_with_a_password_that_everybody_knows() -> None:
    environment = services()["grafana"]["environment"]
    assert (environment["GF_AUTH_BASIC_ENABLED"], environment["GF_AUTH_DISABLE_LOGIN_FORM"]) == ("false", "true")
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_the_load_test_of_the_first_lines_is_one_that_the_client_knows() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    (arguments,) = re.findall(r"^# .* run --rm load (.*)$", text, re.MULTILINE)
    chosen = build_parser().parse_args([*services()["load"]["entrypoint"][1:], *arguments.split()])
    assert chosen.server == f"server:{image_environment()['INFERRY_GRPC_ADDRESS'].rpartition(':')[2]}"
    assert services()["load"]["depends_on"] == {"server": {"condition": "service_healthy"}}
    assert "\nHEALTHCHECK " in DOCKERFILE
