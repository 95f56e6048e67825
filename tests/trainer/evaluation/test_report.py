import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import Part
from inferry_trainer.evaluation.charts import line_chart, nice_ticks
from inferry_trainer.evaluation.evaluate import evaluate_probabilities
from inferry_trainer.evaluation.mistakes import worst_mistakes
from inferry_trainer.evaluation.model_card import render_model_card
from inferry_trainer.evaluation.pictures import encode_png
from inferry_trainer.evaluation.report import render_report
from inferry_trainer.training.description import RunDescription
from inferry_trainer.training.records import EpochRecord

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
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


PROBABILITIES = np.array([[0.9, 0.1]] * 14 + [[0.4, 0.6]] + [[0.3, 0.7]] * 13 + [[0.8, 0.2]] * 2, np.float32)
TEST = Part(np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), np.uint8), np.array([0] * 15 + [1] * 15))
EVALUATION = evaluate_probabilities(PROBABILITIES, TEST.labels, groups={"young <b>": np.arange(30) < 12})


def render(epochs: int) -> str:
    history = [EpochRecord(n, 1 / n, 1 - 0.5 / n, 1 / n, 1 - 0.4 / n, 2.0) for n in range(1, epochs + 1)]
    return render_report(DESCRIPTION, history, EVALUATION, METRICS, worst_mistakes(PROBABILITIES, TEST))


@pytest.mark.parametrize("epochs", [1, 2, 37])
def test_a_report_is_one_page_that_needs_nothing_else(epochs: int) -> None:
    page = render(epochs)
    balance = TagBalance()
    balance.feed(page)
    assert balance.open == []
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)', page))
    assert "nan" not in page


def test_a_report_shows_the_figures_and_escapes_the_labels() -> None:
    page = render(3)
    for shown in (
        "90.00%",
        "3 of 30",
        "95.00%",
        "1:01",
        "12,345",
        ">14<",
        ">13<",
        "cat &lt;small&gt;",
        "dog &amp; co",
        "young &lt;b&gt;",
    ):
        assert shown in page


def test_the_gallery_shows_the_mistakes_that_were_surest_first() -> None:
    mistakes = worst_mistakes(PROBABILITIES, TEST)
    assert [(m.position, m.truth, m.answer) for m in mistakes] == [(28, 1, 0), (29, 1, 0), (14, 0, 1)]
    assert [round(m.probability, 3) for m in mistakes] == [0.8, 0.8, 0.6]
    assert render(2).count("<figure>") == 3
    assert len(worst_mistakes(PROBABILITIES, TEST, count=1)) == 1
    assert "There are none" in render_report(
        DESCRIPTION,
        [EpochRecord(1, 1, 1, 1, 1, 1)],
        evaluate_probabilities(PROBABILITIES[:2], TEST.labels[:2]),
        METRICS,
    )


def test_a_picture_in_a_page_keeps_every_pixel() -> None:
    for image in (TEST.images[0], TEST.images[0][:, :, :1]):
        with Image.open(io.BytesIO(encode_png(image))) as picture:
            assert np.array_equal(np.asarray(picture).reshape(image.shape), image)


def test_a_model_card_says_what_for_what_not_for_and_how_well() -> None:
    card = render_model_card(DESCRIPTION, EVALUATION, METRICS | {"training_pipeline_test_accuracy": 0.91})
    for heading in ("## Intended use", "## Limits", "## Data", "## Figures"):
        assert heading in card
    assert "90.00% (27 of 30); 95 % confidence 74.38 to 96.54 %" in card
    assert r"| cat \<small\> | 15 | 93.33% | 87.50% |" in card
    assert "instead of as in production: +1.00 points" in card


def test_celebas_card_says_what_the_label_is() -> None:
    celeba = replace(DESCRIPTION, config=replace(DESCRIPTION.config, dataset="celeba"))
    card = render_model_card(celeba, EVALUATION, METRICS)
    assert "one annotator's guess about a photograph" in card
    assert "Do not use it to decide anything about people" in card


def test_a_runs_report_and_card_are_written(digits_run: Path) -> None:
    assert "learning curves" in (digits_run / "report.html").read_text().lower()
    assert "# Model card: digits" in (digits_run / "MODEL_CARD.md").read_text()


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
@example(0.0, -5e-324)
def test_ticks_are_few_and_enclose_the_values(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    if 0 < high - low < 1e-6:
        high = low
    ticks = nice_ticks(low, high)
    slack = max(1e-6 * max(abs(low), abs(high)), 1e-300)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + slack
    assert high - slack <= ticks[-1]
    assert ticks == sorted(set(ticks))


def test_a_chart_of_equal_values_has_a_height() -> None:
    assert "nan" not in line_chart("flat", {"training": [0.0, 0.0]})
