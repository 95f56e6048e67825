import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.batch.plan import (
    Plan,
    describe_difference,
    list_parts,
    part_count,
    part_digest,
    part_length,
    read_plan,
    write_plan,
)
from inferry_client.batch.records import MissingContent, Record

PLAN = Plan("digest", 10, 0, "mnist", "3", "model", 4, "parquet", 1, all_probabilities=False, max_file_bytes=1000)


RECORD = Record("", 0, "", MissingContent(""))


@given(count=st.integers(0, 200), part_size=st.integers(1, 50))
def test_every_picture_is_in_one_part_of_the_length_that_the_plan_says(count: int, part_size: int) -> None:
    records = [RECORD._replace(id=str(number)) for number in range(count)]
    plan = replace(PLAN, picture_count=count, part_size=part_size, first_part=3)
    parts = list(list_parts(records, part_size))
    assert [record for part in parts for record in part] == records
    assert [len(part) for part in parts] == [part_length(plan, 3 + number) for number in range(part_count(plan))]
    assert part_length(plan, 2) == part_length(plan, 3 + len(parts)) == 0


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
        ({"part_size": 0}, "part_size is too low"),
    ],
)
def test_a_plan_with_a_wrong_value_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_plan(json.dumps(json.loads(write_plan(PLAN)) | change))


def test_plans_that_differ_say_in_what() -> None:
    other = replace(PLAN, listing_sha256="another", picture_count=11, model_version="4")
    assert describe_difference(PLAN, PLAN) == ""
    assert describe_difference(PLAN, other) == "other pictures (10 then, 11 now), another model version (3 then, 4 now)"


def test_the_digest_of_a_part_changes_with_any_id_or_size() -> None:
    def digest(*pictures: tuple[str, int]) -> bytes:
        return part_digest([RECORD._replace(id=name, size_bytes=size) for name, size in pictures])

    listings = [(), (("a", 1),), (("a", 2),), (("b", 1),), (("a1", 1),), (("a", 1), ("b", 1)), (("a\n1 1\nb", 1),)]
    assert len({digest(*listing) for listing in listings}) == len(listings)
