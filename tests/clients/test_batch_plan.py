import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.batch.errors import JobError
from inferry_client.batch.pictures import PictureFile, find_pictures, listing_digest, printable_path
from inferry_client.batch.plan import Plan, chunks, describe_difference, part_count, read_plan, write_plan

PLAN = Plan("digest", 10, "mnist", "3", part_size=4, all_probabilities=False)


@given(
    count=st.integers(1, 200),
    part_size=st.integers(1, 50),
    batch_size=st.integers(1, 70),
    done=st.sets(st.integers(0, 9)),
)
def test_every_picture_is_in_one_chunk_or_in_a_complete_part(
    count: int, part_size: int, batch_size: int, done: set[int]
) -> None:
    plan = Plan("digest", count, "mnist", "3", part_size, all_probabilities=False)
    planned = list(chunks(plan, done_parts=done, batch_size=batch_size))
    sent = [number for chunk in planned for number in range(chunk.start, chunk.stop)]
    assert sent == [number for number in range(count) if number // part_size not in done]
    assert all(0 < chunk.stop - chunk.start <= batch_size for chunk in planned)
    assert [chunk.part for chunk in planned if chunk.ends_part] == [n for n in range(part_count(plan)) if n not in done]


def test_a_plan_reads_back_as_it_was() -> None:
    assert read_plan(write_plan(PLAN)) == PLAN


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": "mnist"}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_plan(text)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"part_size": "4"}, "part_size is '4'; expected a whole number"),
        ({"part_size": 4.5}, "part_size is 4.5; expected a whole number"),
        ({"picture_count": True}, "picture_count is True; expected a whole number"),
        ({"model": None}, "model is None; expected text"),
        ({"all_probabilities": 1}, "all_probabilities is 1; expected true or false"),
        ({"part_size": 0}, "picture_count and part_size are below 1"),
    ],
)
def test_a_plan_with_a_wrong_value_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_plan(json.dumps(json.loads(write_plan(PLAN)) | change))


def test_plans_that_differ_say_in_what() -> None:
    other = Plan("another", 11, "mnist", "4", part_size=4, all_probabilities=False)
    assert describe_difference(PLAN, PLAN) == ""
    assert describe_difference(PLAN, other) == "other pictures (10 then, 11 now), another model version (3 then, 4 now)"


def test_pictures_are_found_by_suffix_in_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", "notes.txt", "sub/deeper/d.bmp", "e.jpeg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    found = find_pictures(tmp_path, recursive=True)
    assert [picture.path for picture in found] == ["a.JPG", "b.png", "e.jpeg", "sub/c.webp", "sub/deeper/d.bmp"]
    assert found[0].size_bytes == 5
    assert [picture.path for picture in find_pictures(tmp_path, recursive=False)] == ["a.JPG", "b.png", "e.jpeg"]


def test_a_folder_without_pictures_and_a_path_that_is_no_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="has no pictures in it or below"):
        find_pictures(tmp_path, recursive=True)
    with pytest.raises(JobError, match="missing is nothing; expected a folder"):
        find_pictures(tmp_path / "missing", recursive=True)
    with pytest.raises(JobError, match="file is a file; expected a folder"):
        find_pictures(tmp_path / "file", recursive=True)


def test_the_digest_changes_with_any_path_or_size() -> None:
    listings = [[], [PictureFile("a", 1)], [PictureFile("a", 2)], [PictureFile("b", 1)], [PictureFile("a1", 1)]]
    assert len({listing_digest(listing) for listing in listings}) == len(listings)


def test_names_that_are_not_utf8_can_be_printed() -> None:
    assert printable_path("caf\udce9.png") == "caf\\xe9.png"
