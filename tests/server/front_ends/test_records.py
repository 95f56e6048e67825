"""Records say the same on the other side of a socket, wherever the pieces begin and end."""

import string
from pathlib import Path

import grpc
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.front_ends import records
from inferry_server.front_ends.plan import FrontEndPlan, read_plan, write_plan
from inferry_server.front_ends.records import Counted, Opening, Record, RecordReader
from inferry_server.front_ends.used_files import UsedFiles, read_used_files, write_used_files
from inferry_server.rpc.statuses import CANCELLED, OK, Status
from inferry_server.transport.options import TransportOptions

RECORDS = st.lists(st.tuples(st.integers(1, 255), st.integers(0, 2**64 - 1), st.binary(max_size=200)), max_size=20)
TIMES = st.floats(0, 1e9)
METADATA = st.lists(
    st.tuples(st.text(string.ascii_lowercase + "-", min_size=1), st.text() | st.binary(max_size=20)), max_size=5
)


@given(RECORDS, st.data())
def test_records_are_read_as_they_were_written_however_they_are_cut(sent: list[Record], data: st.DataObject) -> None:
    whole = b"".join(records.write(*record) for record in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=40)))
    reader, read = RecordReader(), []
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        read += reader.read(whole[start:stop])
    assert read == sent


def test_a_large_record_in_many_pieces_is_joined_once() -> None:
    body = bytes(range(256)) * 4096
    whole = records.write(records.MESSAGE, 7, body) + records.write(records.HALF_CLOSE, 7)
    reader, read = RecordReader(), []
    for start in range(0, len(whole), 1000):
        read += reader.read(whole[start : start + 1000])
    assert read == [(records.MESSAGE, 7, body), (records.HALF_CLOSE, 7, b"")]


@given(st.integers(0, 65535), st.binary(max_size=50), st.none() | TIMES, TIMES, st.binary(max_size=50))
def test_a_call_begins_on_the_other_side_as_it_came(
    path: int, metadata: bytes, deadline: float | None, arrived: float, message: bytes
) -> None:
    opening = Opening(path, metadata, deadline, arrived, message)
    [(kind, number, body)] = RecordReader().read(records.write_opening(records.UNARY, 5, opening))
    assert (kind, number, records.read_opening(body)) == (records.UNARY, 5, opening)


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
