"""Arguments of `inferry load` that do not go together are named before a request is sent."""

from pathlib import Path

import pytest

from inferry_client.cli import build_parser, main
from inferry_client.console.option_types import given_options
from inferry_client.load.arguments import gates_of
from inferry_client.load.summary import Gates
from testkit import brightness_model
from testkit.certificates import Authority
from testkit.scripted_server import ScriptedServer

PEAK = ("--find-peak", "--p99-ms", "5")


@pytest.mark.parametrize(
    ("options", "status", "named"),
    [
        (["--soak", "--rate", "5", "--duration", "19s"], 2, "expected a --duration of 20 s or more"),
        (["--soak", "--rate", "5,10"], 2, "--soak holds one load"),
        (["--find-peak"], 2, "--find-peak needs --p99-ms"),
        ([*PEAK, "--rate", "1,2"], 2, "--find-peak takes one --rate"),
        (["--rate", "1000000", "--duration", "1h"], 2, "--rate 1e+06 for 3600 s is 3,600,000,000 requests; expected"),
        ([*PEAK, "--rate", "1000000", "--duration", "1m"], 2, "for 60 s is 60,000,000 requests; expected up to 20,0"),
        (["--rate", "5", "--verify", "missing.json"], 1, "--verify missing.json cannot be read: No such file"),
        (["--rate", "5", "--verify", "folders"], 1, "needs pictures in folders named by their labels"),
        (["--rate", "5", "--rows", "65"], 1, "65 rows"),
        (["--rate", "5", "--users", "32"], 2, "--users would do nothing: an open loop"),
        ([*PEAK, "--spawn-rate=2", "--users", "4"], 2, "--spawn-rate and --users would do nothing: an open loop"),
        (["--users", "4", "--arrivals", "poisson"], 2, "--arrivals would do nothing: users send as soon as"),
        (["--seed", "0"], 2, "--seed would do nothing: users send as soon as"),
        (["--rate", "5", "--arrivals", "constant", "--seed", "7"], 2, "--seed would do nothing: --arrivals constant"),
        (["--users", "2", "--processes", "3"], 2, "--processes 3 came for --users 2; expected a user or more"),
    ],
)
def test_what_cannot_be_done_is_named_before_anything_is_sent(
    brightness_server: ScriptedServer, options: list[str], status: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", "--server", brightness_server.address, *options]) == status
    assert named in capsys.readouterr().err
    assert len(brightness_server.requests("ModelInfer")) <= (status == 1)


@pytest.mark.parametrize(
    ("options", "status", "named"),
    [
        (["compare", "a.json"], 2, "expected `inferry load compare A B`"),
        (["compare", "missing.json", "b.json"], 1, "missing.json: No such file or directory"),
        (["compare", "missing.json", "b.json", "--verbose"], 1, "missing.json: No such file or directory"),
        (["compare", "a.json", "b.json", "--p99-ms", "5"], 2, "--p99-ms would do nothing: a comparison reads two"),
        (["--json=c.json", "--soak", "compare", "a", "b"], 2, "--json and --soak would do nothing: a comparison"),
        (["compare", "a.json", "b.json", "--server", "host:1"], 2, "--server would do nothing: a comparison"),
    ],
)
def test_a_comparison_takes_two_files_and_nothing_else(
    options: list[str], status: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", *options]) == status
    assert named in capsys.readouterr().err


def test_many_requests_count_by_the_mean_of_their_rates(
    brightness_server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    spike = [
        "--rate",
        "100,1000000,100",
        "--verify",
        "missing.json",
    ]  # 10 million requests, which can be kept
    assert main(["load", "--server", brightness_server.address, *spike]) == 1
    assert "missing.json cannot be read" in capsys.readouterr().err


def test_no_file_is_written_that_is_read_or_that_another_option_writes(
    brightness_server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.json").write_text("before")
    (tmp_path / "link.json").symlink_to("one.json")
    (tmp_path / "hard.json").hardlink_to("one.json")
    (tmp_path / "one.png").write_bytes(brightness_model.picture(0))
    authority = str(Authority(tmp_path, "ours").certificate)
    for options, pair in (
        (["--json", "one.json", "--html", "./one.json"], "--html and --json"),
        (["--json", "one.json", "--record", "link.json"], "--json and --record"),
        (["--record", "new.json", "--html", str(tmp_path / "new.json")], "--html and --record"),
        (["--record", "one.json", "--verify", "one.json"], "--record and --verify"),
        (["--html", "hard.json", "--verify", "one.json"], "--html and --verify"),
        (["--json", "one.png", "--images", "one.png"], "--json and --images"),
        (["--json", authority, "--ca", authority], "--json and --ca"),
    ):
        assert main(["load", "--rate", "5", "--server", brightness_server.address, *options]) == 2
        assert f"{pair} both name " in capsys.readouterr().err
    assert (tmp_path / "one.json").read_text() == "before"
    assert not (tmp_path / "new.json").exists()
    assert brightness_server.requests("ModelInfer") == []
    assert brightness_server.requests("Classify") == []


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ([], 0.0),
        (["--max-error-rate", "0.5"], 0.5),
        (["--find-peak"], 0.001),
        (["--find-peak", "--max-error-rate", "0"], 0.0),
    ],
)
def test_no_error_at_all_may_be_asked_of_a_peak_too(options: list[str], share: float) -> None:
    args = build_parser().parse_args(["load", "--p99-ms", "5", *options])
    assert gates_of(args) == Gates(5.0, share)


def test_options_that_were_given_are_known_by_name() -> None:
    assert given_options(["load", "--users=32", "--rate", "5", "-x", "--", "--seed"]) == {"--users", "--rate"}
