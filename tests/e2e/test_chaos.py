"""`make chaos`: a short form of it, and that what must not be is found."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chaos.__main__ import main
from chaos.account import LATE, Account
from chaos.by_clients import check_given_up
from chaos.by_load import check_overload
from chaos.models import draw_picture, is_right
from chaos.playing import MOST_FILES, MOST_MIB, Disturbance, Result, faults_of, play
from chaos.processes import sums_by
from chaos.report import line_of, table_of, write_table
from chaos.scene import FaultError, Setup
from chaos.table import DISTURBANCES

ROOT = Path(__file__).parents[2]
REFUSABLE = frozenset({"RESOURCE_EXHAUSTED"})


@pytest.mark.slow
def test_servers_recover_from_a_short_form_of_every_disturbance(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick"]) == 0, "".join(capsys.readouterr())


def account(*, answered: int = 0, wrong: int = 0, outcomes: tuple[str, ...] = ()) -> Account:
    made = Account()
    for right in [True] * answered + [False] * wrong:
        made.send()
        made.end(right=right)
    for outcome in outcomes:
        made.send()
        made.fail(outcome)
    return made


def faults(result: Result, *, before: Account | None = None, after: Account | None = None) -> list[str]:
    return faults_of(result, REFUSABLE, before=before or account(answered=1), after=after or account(answered=1))


def result(traffic: Account | None = None) -> Result:
    return Result("a test", 5.0, traffic=traffic or account(answered=3, outcomes=("RESOURCE_EXHAUSTED",)))


def test_what_a_disturbance_allows_is_no_fault() -> None:
    assert faults(result()) == []


def lose_one(one: Result) -> None:
    one.traffic.send()


def take_long(one: Result) -> None:
    one.recovered_s = 5.1


def keep_memory(one: Result) -> None:
    one.memory = (100.0, 100.0 + MOST_MIB + 1)


def keep_files(one: Result) -> None:
    one.files = (20, 20 + MOST_FILES + 1)


def answer_the_attack_wrong(one: Result) -> None:
    one.attack = account(wrong=1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lose_one, "5 requests were sent and 4 ended"),
        (take_long, "recovered after 5.1 s; expected 5 s at most"),
        (keep_memory, "memory went from 100 to 165 MiB"),
        (keep_files, "descriptors went from 20 to 29"),
        (answer_the_attack_wrong, "own requests"),
    ],
)
def test_what_must_not_be_is_named(spoil: Callable[[Result], None], said: str) -> None:
    one = result()
    spoil(one)
    (fault,) = faults(one)
    assert said in fault


@pytest.mark.parametrize("outcome", ["UNAVAILABLE", LATE, "INTERNAL", "HTTP 500", "DEADLINE_EXCEEDED"])
def test_an_outcome_that_is_not_allowed_is_named(outcome: str) -> None:
    (fault,) = faults(result(account(answered=1, outcomes=(outcome,))))
    assert outcome in fault


def test_before_and_afterwards_nothing_is_allowed() -> None:
    refused = account(answered=1, outcomes=("RESOURCE_EXHAUSTED",))
    (before, after) = faults(result(), before=refused, after=refused)
    assert before.startswith("before it")
    assert after.startswith("afterwards")


def test_wrong_answers_are_named_whenever_they_come() -> None:
    wrong = account(wrong=2)
    assert [fault.endswith("2 answers were wrong") for fault in faults(result(wrong), before=wrong, after=wrong)] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("overloaded", "said"),
    [
        (account(answered=9, outcomes=("RESOURCE_EXHAUSTED",) * 51), "it answered 9 of 60 requests; expected 10"),
        (account(answered=30, outcomes=("INTERNAL",)), "ended otherwise than refused: {'INTERNAL': 1}"),
        (account(answered=30, outcomes=("UNAVAILABLE",)), "ended otherwise than refused: {'UNAVAILABLE': 1}"),
    ],
)
def test_an_overloaded_server_that_answers_nobody_or_fails_is_named(overloaded: Account, said: str) -> None:
    with pytest.raises(FaultError, match=re.escape(said)):
        check_overload(overloaded)


def test_requests_that_come_for_ever_must_be_given_up_on_both_ports() -> None:
    calls = 'inferry_requests_outcome_total{code="DEADLINE_EXCEEDED",method="m",reason="request_not_received"}'
    slow, crowded, idle = (
        f'inferry_http_connections_closed_total{{reason="{reason}"}}' for reason in ("slow", "crowded", "idle")
    )
    check_given_up({calls: 3.0, slow: 4.0, crowded: 1.0}, calls=3, pages=5)
    for series in ({calls: 2.0, slow: 5.0}, {slow: 5.0}, {calls: 3.0, slow: 4.0, idle: 9.0}, {calls: 3.0}):
        with pytest.raises(FaultError):
            check_given_up(series, calls=3, pages=5)


def test_the_answer_of_another_picture_is_wrong() -> None:
    rng = random.Random(1)
    pictures = [draw_picture(rng) for _ in range(50)]
    answers = [np.array([1 - p.mean() / 255, p.mean() / 255], np.float32) for p in pictures]
    for picture, own in zip(pictures, answers, strict=True):
        assert is_right(picture, own)
        assert sum(is_right(picture, answer) for answer in answers) == 1


def test_a_metric_is_summed_over_all_labels_but_one() -> None:
    series = {'m{method="a",code="OK"}': 2.0, 'm{method="a",code="X"}': 3.0, 'm{method="b",code="OK"}': 4.0, "m2": 1.0}
    assert sums_by(series, "m", "method") == {"a": 5, "b": 4}
    assert sums_by(series, "m", "code") == {"OK": 6, "X": 3}


def test_the_table_takes_its_place_in_a_page_and_leaves_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- chaos: begin -->\nold\n<!-- chaos: end -->\nbelow\n")
    results = [result(), Result("another", 5.0, skipped="no disk")]
    write_table(page, results)
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert table_of(results) in text
    assert "1 RESOURCE_EXHAUSTED" in text
    assert "not played: no disk" in text
    assert "4 sent = 3 answered + 1 refused + 0 failed" in line_of(results[0])


def test_the_page_has_a_row_for_every_disturbance() -> None:
    page = (ROOT / "docs" / "chaos.md").read_text()
    assert [one.name for one in DISTURBANCES if f"\n| {one.name} | " not in page] == []


def test_an_unknown_name_plays_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "earthquake"])
    assert "SIGTERM" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--times", "0"], ["--times", "2", "--write", "page.md"]])
def test_a_number_of_times_that_makes_no_sense_plays_nothing(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "clock", *arguments])
    assert "expected 1 or more" in capsys.readouterr().err


def test_a_server_that_does_not_start_is_a_fault_and_ends_nothing_else() -> None:
    def refusing(folder: Path) -> Setup:
        return Setup(folder / "models", ("--no-such-setting",))

    played = play(Disturbance("a test", lambda _: "", 5.0, refusing), effort=0.1)
    (fault,) = played.faults
    assert "no-such-setting" in fault


def test_what_a_machine_lacks_is_named_and_not_played() -> None:
    played = play(Disturbance("a test", lambda _: "", 5.0, missing=lambda: "no disk"), effort=0.1)
    assert (played.skipped, played.faults, played.traffic.sent) == ("no disk", [], 0)
