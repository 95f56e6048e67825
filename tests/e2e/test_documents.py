"""What the documents say can be typed, and the files they name exist."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from inferry_client.cli import build_parser as client_parser
from inferry_server.__main__ import build_parser as server_parser
from inferry_server.errors import ServingError, StartError
from inferry_server.settings.settings import Settings
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_trainer.cli import build_parser as trainer_parser

ROOT = Path(__file__).parents[2]
REFERENCE = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/README.md"), *REFERENCE]
PARSERS = {"inferry": client_parser, "inferry-serve": server_parser, "inferry-train": trainer_parser}


def commands() -> list[str]:
    """Every line of a document that is a command of ours, without its comment."""
    lines = [line.strip() for document in DOCUMENTS for line in document.read_text().splitlines()]
    typed = [line for line in lines if re.match(r"inferry(-train|-serve)? ", line) and " ready: " not in line]
    return [line.partition(" #")[0].strip() for line in typed]


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_in_the_documents_is_understood(command: str) -> None:
    program, *arguments = shlex.split(command)
    PARSERS[program]().parse_args(arguments)


def test_there_are_commands_to_check() -> None:
    assert len(set(commands())) >= 8


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


def test_every_setting_and_metric_of_the_server_is_documented() -> None:
    text = "".join(page.read_text() for page in REFERENCE)
    settings = {field.name.replace("_", "-") for field in fields(Settings)}
    metrics = {metric.name for metric in ServerMetrics().registry.collect() if metric.name.startswith("inferry")}
    assert not {name for name in settings | metrics if f"`{name}" not in text}


def kinds_of(error: type[ServingError]) -> set[str]:
    """What an error and those below it are counted as."""
    return {error.kind}.union(*map(kinds_of, error.__subclasses__()))


def test_every_reason_that_a_request_may_be_refused_for_is_documented() -> None:
    """Some are made of several words, as `queue_full_rows`; those that stop a start are of no request."""
    text = (ROOT / "docs" / "observability.md").read_text()
    reasons = kinds_of(ServingError) - {ServingError.kind, StartError.kind}
    assert len(reasons) > 20
    assert not {reason for reason in reasons if f"`{reason}`" not in text}


def bounds() -> list[list[str]]:
    """The cells of every row of the table of bounds."""
    section = (
        (ROOT / "SECURITY.md").read_text().partition("\n## Bounds\n")[2].partition("\nThe server does not bound")[0]
    )
    return [row.strip("| ").split(" | ") for row in section.splitlines() if row.startswith("| ")][2:]


@pytest.mark.parametrize("row", bounds(), ids=lambda row: row[0][:40])
def test_every_bound_names_a_setting_that_exists_and_metrics_that_exist(row: list[str]) -> None:
    what, setting, default, outcome = row
    assert what
    assert default
    known = {field.name.replace("_", "-") for field in fields(Settings)}
    named = set(re.findall(r"`([a-z0-9-]+)`", setting))
    assert named <= known
    assert named or setting == "fixed"
    metrics = {metric.name for metric in ServerMetrics().registry.collect()}
    counted = {name.removesuffix("_total") for name in re.findall(r"`(inferry_[a-z_]+)", outcome)}
    assert counted <= metrics | {"inferry_open_connections"}  # which is asked for only where the system has it


def test_there_are_bounds_to_check() -> None:
    assert len(bounds()) >= 25
