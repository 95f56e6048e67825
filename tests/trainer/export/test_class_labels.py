from pathlib import Path

import pytest

from inferry_trainer.errors import ConfigError
from inferry_trainer.export.class_labels import check_label_count, read_labels


def test_labels_come_from_the_line_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\n\ndog \r\n")
    assert read_labels("cat, dog") == ("cat", "dog")
    assert read_labels(str(tmp_path / "labels.txt")) == ("cat", "dog")


def test_a_byte_order_mark_is_no_part_of_the_first_label(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("\ufeffcat\ndog\n".encode())
    assert read_labels(str(tmp_path / "labels.txt")) == ("cat", "dog")


def test_a_file_whose_name_has_a_comma_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cats,dogs.txt").write_text("cat\ndog, small\n")
    assert read_labels(str(tmp_path / "cats,dogs.txt")) == ("cat", "dog, small")


@pytest.mark.parametrize("text", ["labels.txt", "/no/such/file", "cat", "", "x" * 5000])
def test_what_is_no_file_and_no_list_is_not_taken_for_a_label(text: str) -> None:
    with pytest.raises(ConfigError, match="there is no such file; expected a file with a label a line"):
        read_labels(text)


def test_a_long_line_of_labels_is_no_file_name() -> None:
    assert len(read_labels(",".join(f"class {number}" for number in range(2000)))) == 2000


def test_a_wrong_count_names_a_few_labels_and_the_way_out() -> None:
    labels = tuple(f"class {number}" for number in range(999))
    with pytest.raises(ConfigError, match=r"1000 classes apart; 999 labels .*class 4 and 994 more.* each output"):
        check_label_count(labels, 1000, of=Path("m.keras"))
    with pytest.raises(ConfigError, match="with a comma in it needs a file"):
        check_label_count(("a", "b", "c"), 2, of=Path("m.keras"))
