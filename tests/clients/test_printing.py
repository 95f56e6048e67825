from inferry_client.console.printing import classification_lines, picture_lines, table
from inferry_client.results import Classification

SEVEN, ONE = Classification(7, "7", 0.9998), Classification(1, "one", 0.0001)


def test_one_label_is_one_plain_line() -> None:
    assert classification_lines([SEVEN]) == ["7  99.98 %"]


def test_a_class_without_label_is_named_by_its_index() -> None:
    assert classification_lines([Classification(4, "", 1.0)]) == ["4  100.00 %"]


def test_several_labels_are_aligned() -> None:
    assert classification_lines([SEVEN, ONE]) == ["7    99.98 %", "one   0.01 %"]


def test_several_pictures_print_their_path_first() -> None:
    assert picture_lines("a.png", [SEVEN], path_width=7) == ["a.png    7  99.98 %"]
    assert picture_lines("a.png", [SEVEN, ONE], path_width=7) == ["a.png", "  7    99.98 %", "  one   0.01 %"]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("NAME", "V"), [("mnist", "1"), ("x", "20")]) == "NAME   V\nmnist  1\nx      20"
