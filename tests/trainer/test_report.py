import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.charts import line_chart, nice_ticks
from inferry_trainer.config import RunConfig
from inferry_trainer.description import RunDescription
from inferry_trainer.evaluate import Evaluation
from inferry_trainer.records import EpochRecord
from inferry_trainer.report import render_report

DESCRIPTION = RunDescription(
    config=RunConfig("pets"),
    labels=("cat <small>", "dog & co"),
    preprocessing=Preprocessing(),
    dataset_sha256="0" * 64,
    dataset_source="made up",
    train_images=100,
    validation_images=10,
    test_images=30,
    library_versions={"keras": "3"},
    git_revision="",
    created_at="2026-01-01T00:00:00Z",
)
METRICS = {"validation_accuracy": 0.95, "train_wall_s": 61, "parameters": 12345}


class TagBalance(HTMLParser):
    """Fails on a tag that is closed without being open, or never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def render(epochs: int) -> str:
    history = [EpochRecord(n, 1 / n, 1 - 0.5 / n, 1 / n, 1 - 0.4 / n, 2.0) for n in range(1, epochs + 1)]
    evaluation = Evaluation(images=30, correct=27, loss=0.3, confusion=np.array([[14, 1], [2, 13]]))
    return render_report(DESCRIPTION, history, evaluation, METRICS)


@pytest.mark.parametrize("epochs", [1, 2, 37])
def test_a_report_is_one_page_that_needs_nothing_else(epochs: int) -> None:
    page = render(epochs)
    balance = TagBalance()
    balance.feed(page)
    assert balance.open == []
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(", page)
    assert "nan" not in page


def test_a_report_shows_the_figures_and_escapes_the_labels() -> None:
    page = render(3)
    for shown in ("90.00%", "3 of 30", "95.00%", "1:01", "12,345", ">14<", ">13<", "cat &lt;small&gt;", "dog &amp; co"):
        assert shown in page


def test_a_runs_report_is_written(digits_run: Path) -> None:
    assert "learning curves" in (digits_run / "report.html").read_text().lower()


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ticks_are_few_and_enclose_the_values(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    if 0 < high - low < 1e-6:
        high = low
    ticks = nice_ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + slack
    assert high - slack <= ticks[-1]
    assert ticks == sorted(set(ticks))


def test_a_chart_of_equal_values_has_a_height() -> None:
    assert "nan" not in line_chart("flat", {"training": [0.0, 0.0]})
