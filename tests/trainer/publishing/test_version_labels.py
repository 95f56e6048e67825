"""Traffic stays with the versions that have it, whatever version is published next."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.version_labels import LABELS_FILE, read_labels_and_traffic, write_version_labels
from inferry_trainer.errors import PublishError
from inferry_trainer.publishing.version_labels import keep_traffic, point_label_at, version_to_keep


def model_of(folder: Path, *versions: int, labels: Mapping[str, int], traffic: Mapping[str, int]) -> Path:
    model = folder / "mnist"
    for version in versions:
        (model / str(version)).mkdir(parents=True)
    if labels:
        write_version_labels(model, labels, traffic)
    return model


def publish_next(model: Path, label: str) -> int:
    """As an export does: traffic first, then the version, then its label."""
    keep_traffic(model, label)
    number = max((int(path.name) for path in model.iterdir() if path.is_dir()), default=0) + 1
    (model / str(number)).mkdir()
    point_label_at(model / str(number), label)
    return number


def known(model: Path) -> tuple[dict[str, int], dict[str, int]]:
    message = read_labels_and_traffic(model)
    return dict(message.labels), dict(message.traffic)


def test_the_version_that_served_becomes_stable_and_keeps_all_traffic(tmp_path: Path) -> None:
    model = model_of(tmp_path, 9, 10, labels={}, traffic={})
    assert publish_next(model, "canary") == 11
    assert known(model) == ({"stable": 10, "canary": 11}, {"stable": 100})


def test_a_split_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    model = model_of(tmp_path, 1, 2, labels={"stable": 1, "canary": 2}, traffic={"stable": 90, "canary": 10})
    publish_next(model, "canary")
    assert known(model) == ({"stable": 1, "canary": 3}, {"stable": 90, "canary": 10})


def test_the_first_version_of_all_needs_no_traffic_and_gives_way_to_no_second(tmp_path: Path) -> None:
    model = tmp_path / "mnist"
    assert version_to_keep(model, "canary") is None
    model.mkdir()
    publish_next(model, "canary")
    assert known(model) == ({"canary": 1}, {})
    publish_next(model, "canary")
    assert known(model) == ({"stable": 1, "canary": 2}, {"stable": 100})


@pytest.mark.parametrize(
    ("labels", "traffic", "expected"),
    [
        ({"stable": 1, "canary": 2}, {"canary": 100}, "gives all traffic to the label 'canary'"),
        ({"stable": 1, "canary": 2}, {"stable": 0, "canary": 1}, "gives all traffic to the label 'canary'"),
        ({"stable": 1}, {}, "requests go to version 3, and its label 'stable' names version 1"),
    ],
)
def test_traffic_that_a_new_version_would_take_is_refused_and_nothing_is_changed(
    labels: dict[str, int], traffic: dict[str, int], expected: str, tmp_path: Path
) -> None:
    model = model_of(tmp_path, 1, 2, 3, labels=labels, traffic=traffic)
    before = (model / LABELS_FILE).read_bytes()
    with pytest.raises(PublishError, match=expected) as refused:
        keep_traffic(model, "canary")
    assert "nothing was published" in str(refused.value)
    assert (model / LABELS_FILE).read_bytes() == before


def test_a_model_whose_settings_choose_versions_needs_its_traffic_written(tmp_path: Path) -> None:
    model = model_of(tmp_path, 1, 2, labels={}, traffic={})
    (model / "config.pbtxt").write_text("version_policy { specific { versions: [1] } }\n")
    with pytest.raises(PublishError, match="has a version_policy"):
        keep_traffic(model, "canary")
    write_version_labels(model, {"stable": 1}, {"stable": 100})
    assert keep_traffic(model, "canary") is None


def test_labels_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    model = model_of(tmp_path, 1, labels={}, traffic={})
    (model / LABELS_FILE).write_text("{")
    with pytest.raises(PublishError, match=LABELS_FILE):
        keep_traffic(model, "canary")


def answering(model: Path) -> set[int]:
    """The versions to which a server sends requests that name none: where `traffic` says, else the newest."""
    labels, traffic = known(model)
    newest = max(int(path.name) for path in model.iterdir() if path.is_dir())
    return {labels[label] for label, weight in traffic.items() if weight} or {newest}


@given(
    versions=st.sets(st.integers(1, 9), min_size=1),
    marked=st.dictionaries(st.sampled_from(["stable", "canary", "beta"]), st.integers(0, 8)),
    weights=st.dictionaries(st.sampled_from(["stable", "canary", "beta"]), st.integers(0, 3)),
)
def test_who_answered_before_answers_after_or_nothing_is_published(
    versions: set[int], marked: dict[str, int], weights: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    ordered = sorted(versions)
    labels = {label: ordered[place % len(ordered)] for label, place in marked.items()}
    traffic = {label: weight for label, weight in weights.items() if label in labels}
    model = model_of(
        tmp_path_factory.mktemp("models"), *ordered, labels=labels, traffic=traffic if any(traffic.values()) else {}
    )
    before = answering(model)
    try:
        new = publish_next(model, "canary")
    except PublishError:
        assert answering(model) == before
        return
    after = answering(model)
    assert after - {new} in (before, before - {labels.get("canary")})
    assert after - {new}
    assert (new in after) == bool(traffic.get("canary"))
