from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.version_labels import (
    LABELS_FILE,
    VersionLabelsError,
    check_label,
    read_labels_and_traffic,
    read_version_labels,
    write_version_labels,
)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True), st.integers(1, 2**63)))
def test_labels_read_back_as_written_and_nothing_else_is_left(labels: dict[str, int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_version_labels(Path(folder), labels)
        assert read_version_labels(Path(folder)) == labels
        assert [path.name for path in Path(folder).iterdir()] == [LABELS_FILE]


def test_traffic_is_kept_for_the_labels_that_stay(tmp_path: Path) -> None:
    write_version_labels(tmp_path, {"stable": 1, "canary": 2}, {"stable": 9, "canary": 1})
    write_version_labels(tmp_path, {"stable": 2, "canary": 3})
    assert dict(read_labels_and_traffic(tmp_path).traffic) == {"stable": 9, "canary": 1}
    write_version_labels(tmp_path, {"canary": 3})
    assert dict(read_labels_and_traffic(tmp_path).traffic) == {"canary": 1}


@pytest.mark.parametrize(
    ("traffic", "message"), [({"beta": 1}, "'beta', which is no label"), ({"stable": 0}, "all weights are 0")]
)
def test_traffic_that_goes_nowhere_is_refused(tmp_path: Path, traffic: dict[str, int], message: str) -> None:
    with pytest.raises(VersionLabelsError, match=message):
        write_version_labels(tmp_path, {"stable": 1}, traffic)


def test_a_model_without_labels_has_none(tmp_path: Path) -> None:
    assert read_version_labels(tmp_path) == {}


@pytest.mark.parametrize("label", ["", "1", "3rd", "Stable", "a b", "../x", "x" * 64, "ü"])
def test_what_could_be_taken_for_a_version_or_a_path_is_no_label(tmp_path: Path, label: str) -> None:
    with pytest.raises(VersionLabelsError, match="cannot be a label"):
        check_label(label)
    with pytest.raises(VersionLabelsError, match="cannot be a label"):
        write_version_labels(tmp_path, {label: 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "<html>", '{"labels": {"1": 2}}', '{"stable": 1}', '{"labels": {"stable": "x"}}'])
def test_a_file_that_holds_no_labels_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / LABELS_FILE).write_text(text)
    with pytest.raises(VersionLabelsError, match=LABELS_FILE):
        read_version_labels(tmp_path)
