"""Records say the same on the other side of a socket, wherever the pieces begin and end."""

import string
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.front_ends import records
from inferry_server.front_ends.arena import BrokenRecordsError
from inferry_server.front_ends.plan import FrontEndPlan, read_plan, write_plan
from inferry_server.front_ends.records import Counted, RecordReader
from inferry_server.front_ends.used_files import UsedFiles, read_used_files, write_used_files
from inferry_server.rpc.statuses import CANCELLED, OK, Status
from inferry_server.transport.options import TransportOptions

RECORDS = st.lists(
    st.tuples(st.integers(1, 127), st.integers(0, 2**64 - 1), st.binary(max_size=200), st.binary(max_size=200)),
    max_size=20,
)
TIMES = st.floats(0, 1e9)
METADATA = st.lists(
    st.tuples(st.text(string.ascii_lowercase + "-", min_size=1), st.text() | st.binary(max_size=20)), max_size=5
)


@given(RECORDS, st.data())
def test_records_are_read_as_they_were_written_however_they_are_cut(
    sent: list[tuple[int, int, bytes, bytes]], data: st.DataObject
) -> None:
    whole = b"".join(records.write(*record) for record in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=40)))
    reader, read = RecordReader(), []
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        read += reader.read(whole[start:stop])
    assert read == sent


@pytest.mark.parametrize("piece_bytes", [1000, 70_000, 10_000_000])
def test_a_large_message_in_pieces_of_any_size_is_read_as_it_was_written(piece_bytes: int) -> None:
    message = bytes(range(256)) * 4096
    sent = [
        (records.SHED, 0, b"before", b""),
        (records.MESSAGE, 7, b"body", message),
        (records.HALF_CLOSE, 7, b"", b""),
    ]
    whole = b"".join(records.write(*record) for record in sent)
    reader, read = RecordReader(), []
    for start in range(0, len(whole), piece_bytes):
        read += reader.read(whole[start : start + piece_bytes])
    assert read == sent
    assert reader.missing == 0


def test_a_record_that_announces_more_than_there_may_be_is_refused_before_it_comes() -> None:
    reader = RecordReader(most_bytes=1000)
    assert reader.read(records.write_head(records.MESSAGE, 1, b"body", 996)) == []
    with pytest.raises(BrokenRecordsError, match="a record of 1001 bytes; expected 1000 at most"):
        RecordReader(most_bytes=1000).read(records.write_head(records.MESSAGE, 1, b"body", 997))


def test_a_message_in_an_arena_that_there_is_not_is_refused() -> None:
    with pytest.raises(BrokenRecordsError):
        RecordReader().read(records.write_placed(records.MESSAGE, 1, b"", place=0, size=64))


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_places_are_the_same_on_the_other_side(places: list[int]) -> None:
    assert list(records.read_places(records.write_places(places))) == places


@given(st.integers(0, 65535), st.binary(max_size=50), st.none() | TIMES, TIMES)
def test_a_call_begins_on_the_other_side_as_it_came(
    path: int, metadata: bytes, deadline: float | None, arrived: float
) -> None:
    body = records.write_opening(path, deadline, arrived, metadata)
    assert records.read_opening(body) == (path, deadline, arrived, metadata)


@given(METADATA)
def test_metadata_keep_their_order_texts_and_bytes(metadata: list[tuple[str, str | bytes]]) -> None:
    assert records.read_metadata(records.write_metadata(metadata)) == tuple(metadata)


@given(st.sampled_from(list(grpc.StatusCode)), st.text(), st.text(string.ascii_lowercase))
def test_a_status_keeps_its_code_message_advice_and_reason(code: grpc.StatusCode, message: str, reason: str) -> None:
    status = Status(code, message, (("grpc-retry-pushback-ms", "12"),), reason)
    read = records.read_status(records.write_status(status))
    assert (read, read.code_name) == (status, code.name)


def test_the_common_statuses_are_the_same_on_the_other_side() -> None:
    assert records.read_status(records.write_status(CANCELLED)) == CANCELLED
    assert records.read_status(records.write_status(OK)) == OK


def test_numbers_and_counted_calls_keep_their_values() -> None:
    counted = Counted("/a.B/C", "UNAUTHENTICATED", "unauthenticated", 0.25)
    assert records.read_counted(records.write_counted(counted)) == counted
    assert records.read_seconds(records.write_seconds(1.5)) == 1.5
    assert records.read_count(records.write_count(2**32 - 1)) == 2**32 - 1


def test_a_plan_tells_the_other_process_everything() -> None:
    options = TransportOptions(
        max_message_bytes=1, max_streams=2, certificate=Path("a.pem"), private_key=Path("b.pem"), compression="gzip",
        compressed_requests=False, max_connection_age_s=2.5,
    )  # fmt: skip
    files = UsedFiles(b"\xff a policy", {Path("a.pem"): bytes(range(256)), Path("b.pem"): b""})
    plan = FrontEndPlan(
        address="[::1]:8001", transport="aio", options=options, unary=["/a/B"], streams=["/a/C"], sheddable=["/a/B"],
        reports_load=True, files=files, most_unsent_bytes=5, log_format="json", log_level="error",
    )  # fmt: skip
    read = read_plan(write_plan(plan))
    assert read.paths == ("/a/B", "/a/C")
    assert vars(read) | {"options": None} == vars(plan) | {"options": None}
    told, said = dict(vars(read.options)), dict(vars(options))
    for of_the_process in ("watch", "client_certificates"):
        del told[of_the_process], said[of_the_process]
    assert told == said
    assert read_used_files(write_used_files(plan.files)) == plan.files
    assert "policy" not in repr(plan.files)  # nor a key, wherever a plan might be shown
