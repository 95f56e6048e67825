"""Both sides of a forwarded call, joined without a process: what the client's call gets is what the handler gave."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from inferry_server.front_ends import forwarding as forwarding_module
from inferry_server.front_ends import records
from inferry_server.front_ends.calls import ForwardedCalls
from inferry_server.rpc.statuses import OK, Status
from testkit.joined import BUSY, STREAM, TOGETHER, UNARY, VIEWING, ClientCall, Joined


@pytest.fixture
def joined() -> Iterator[Joined]:
    it = Joined()
    yield it
    it.to_front.close()
    it.to_owner.close()


def test_a_reply_reaches_the_client_and_is_counted_once(joined: Joined) -> None:
    call = joined.ask(b"question", metadata=(("a", "b"), ("c-bin", b"\xff")), deadline=12.5)
    [there] = joined.calls
    assert (there.method, tuple(there.metadata), there.deadline) == (UNARY, (("a", "b"), ("c-bin", b"\xff")), 12.5)
    assert joined.router.unary_in_flight() == joined.front.unary_in_flight() == 1
    there.reply(b"reply")
    joined.run()
    assert (call.got, call.status) == ([b"reply"], OK)
    assert joined.counted(UNARY, "OK") == 1
    assert joined.router.unary_in_flight() == joined.front.unary_in_flight() == len(joined.owner) == 0


def test_a_status_reaches_the_client_with_its_advice(joined: Joined) -> None:
    call = joined.ask(b"question")
    joined.calls[0].abort(BUSY)
    joined.run()
    assert call.status == BUSY
    assert joined.counted(UNARY, "RESOURCE_EXHAUSTED", "queue_full_rows") == 1


def test_what_a_handler_raises_reaches_the_client(joined: Joined) -> None:
    call = joined.ask(b"bad")
    assert call.status is not None
    assert (call.status.code, call.status.message) == (grpc.StatusCode.INVALID_ARGUMENT, "bad")


def test_only_handlers_that_take_views_get_them(joined: Joined) -> None:
    paths = [UNARY, STREAM, VIEWING]
    owner = ForwardedCalls(joined.router, paths, lambda *_: None, lambda: None)
    opening = [records.write_opening(path, None, 0.0, b"[]") for path in range(3)]
    view = memoryview(b"question")
    owner.handlers[records.UNARY](1, opening[0], view)
    owner.handlers[records.UNARY](2, opening[2], view)
    owner.handlers[records.OPEN](3, opening[1], b"")
    owner.handlers[records.MESSAGE](3, b"", view)
    assert joined.messages == [b"question"] * 2
    assert [type(message) for message in joined.messages] == [bytes, memoryview]
    assert [type(message) for message in joined.streams[0].messages] == [bytes]


def test_a_client_that_goes_away_cancels_the_request_and_is_counted_once(joined: Joined) -> None:
    call = joined.ask(b"question")
    call.cancelled()
    joined.run()
    assert joined.cancelled == [True]
    joined.calls[0].reply(b"too late")
    joined.run()
    assert call.got == []
    assert joined.counted(UNARY, "CANCELLED") == 1
    assert joined.counted(UNARY, "OK") == 0


def test_a_reply_that_crosses_the_cancellation_is_dropped(joined: Joined) -> None:
    call = joined.ask(b"question")
    joined.calls[0].reply(b"reply")
    call.cancelled()
    joined.run()
    assert (call.got, len(joined.owner)) == ([], 0)


def test_a_call_that_ends_before_it_is_forwarded_is_counted_by_the_owner(joined: Joined) -> None:
    ClientCall(joined.front, UNARY).abort(BUSY)
    joined.front.shed(UNARY, Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "unread", (), "shed"))
    joined.run()
    assert joined.counted(UNARY, "RESOURCE_EXHAUSTED", "queue_full_rows") == 1
    assert joined.counted(UNARY, "RESOURCE_EXHAUSTED", "shed") == 1
    assert joined.shed == [True]
    joined.front.reply_given_up()
    joined.run()
    joined.front.cut_off(3)
    joined.run()
    for accepted, used in ((3, 1), (0, 1)):
        joined.front.tls_connections(accepted, used)
        joined.run()
    assert joined.metrics.registry.get_sample_value("inferry_replies_unread_total") == 1
    assert joined.metrics.registry.get_sample_value("inferry_connections_closed_total", {"reason": "peer"}) == 3
    for stage, count in (("accepted", 3), ("used", 2)):
        assert joined.metrics.registry.get_sample_value("inferry_tls_connections_total", {"stage": stage}) == count
    assert joined.calls == []


def test_a_stream_goes_both_ways_and_ends_as_the_owner_says(joined: Joined) -> None:
    call, receiver = joined.open()
    receiver.on_message(b"1")
    receiver.on_message(b"2")
    joined.run()
    [there] = joined.streams
    there.call.send(b"one")
    there.call.send(b"two")
    receiver.on_half_close()
    joined.run()
    assert (there.messages, there.ends, call.got) == ([b"1", b"2"], ["half-close"], [b"one", b"two"])
    there.call.finish()
    joined.run()
    assert (call.status, len(joined.owner)) == (OK, 0)
    assert joined.counted(STREAM, "OK") == 1


def test_a_stream_that_is_refused_for_its_message_is_counted_so(joined: Joined) -> None:
    call, _ = joined.open()
    call.cancelled(Status(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="message_refused"))
    joined.run()
    assert joined.counted(STREAM, "RESOURCE_EXHAUSTED", "message_refused") == 1
    assert joined.counted(STREAM, "CANCELLED") == 0


def test_the_owner_hears_of_a_front_end_that_stops(joined: Joined) -> None:
    _, receiver = joined.open()
    receiver.on_drain()
    joined.run()
    assert joined.streams[0].ends == ["drain"]


def test_a_stream_is_read_no_further_than_the_owner_takes(joined: Joined) -> None:
    call, receiver = joined.open()
    joined.streams[0].call.pause_reading()
    sent = 0
    while not call.paused:
        receiver.on_message(b"%d" % sent)
        sent += 1
        joined.run()
    assert sent == forwarding_module._MOST_UNTAKEN
    joined.streams[0].call.resume_reading()
    joined.run()
    assert not call.paused


def test_large_requests_of_a_stream_are_counted_by_their_bytes(joined: Joined) -> None:
    call, receiver = joined.open()
    receiver.on_message(bytes(forwarding_module._MOST_UNTAKEN_BYTES))
    assert call.paused


def test_a_stream_of_large_requests_goes_on_as_they_are_taken(joined: Joined) -> None:
    call, receiver = joined.open()
    for _ in range(40):
        assert not call.paused
        receiver.on_message(bytes(600_000))
        while joined.to_owner.unsent_bytes:
            joined.run()
        joined.run()
    assert len(joined.streams[0].messages) == 40


def test_requests_are_refused_while_the_owner_takes_none() -> None:
    joined = Joined(most_unsent_bytes=1 << 20)
    calls = [ClientCall(joined.front, UNARY) for _ in range(40)]
    for call in calls:
        joined.front.handle(call, bytes(100_000))
    refused = [call for call in calls if call.status is not None]
    assert refused
    assert {call.status.code for call in refused if call.status} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    while len(joined.calls) < len(calls) - len(refused):  # none of the others is lost
        joined.run()
    joined.run()
    assert joined.counted(UNARY, "RESOURCE_EXHAUSTED", "queue_full_bytes") == len(refused)


def test_what_the_transport_saw_pending_is_there_when_it_takes_it(joined: Joined) -> None:
    gathering = joined.forwarding.gathering
    with gathering.reading():
        joined.front.handle(ClientCall(joined.front, UNARY), b"question")
        for _ in range(40):
            assert len(gathering.pending) == 1
            joined.front.handle(ClientCall(joined.front, UNARY), b"question")
        gathering.pending.popleft()()
    joined.run()
    assert len(joined.calls) == 41


def test_a_front_end_stays_awake_for_one_call_and_sleeps_beside_several(joined: Joined) -> None:
    stays = [joined.forwarding.gathering.stays_awake]
    for _ in range(2):
        joined.front.handle(ClientCall(joined.front, UNARY), b"question")
        stays.append(joined.forwarding.gathering.stays_awake)
    joined.run()
    joined.calls[0].reply(b"answer")
    joined.run()
    assert [*stays, joined.forwarding.gathering.stays_awake] == [True, True, False, True]


def ask_at_once(joined: Joined, path: str, *messages: bytes) -> list[ClientCall]:
    calls = [ClientCall(joined.front, path) for _ in messages]
    for call, message in zip(calls, messages, strict=True):
        joined.front.handle(call, message)
    joined.run()
    return calls


def test_calls_that_came_together_are_handled_together(joined: Joined) -> None:
    calls = ask_at_once(joined, TOGETHER, b"one", b"two", b"no longer checked, so alone", b"three")
    assert joined.together == [[b"one", b"two", b"three"]]
    assert [call.got for call in calls] == [[b"ONE"], [b"TWO"], [], [b"THREE"]]
    assert joined.messages == [b"no longer checked, so alone"]
    ask_at_once(joined, TOGETHER, b"four")
    assert joined.messages[1:] == [b"four"]  # alone, it needs no others
    ask_at_once(joined, UNARY, b"", b"", b"six")  # which may be empty
    assert joined.messages[2:] == [b"", b"", b"six"]
    assert len(joined.together) == 1


def test_an_error_of_those_that_came_together_ends_each_that_has_no_outcome(joined: Joined) -> None:
    calls = ask_at_once(joined, TOGETHER, b"one", b"worst", b"three")
    assert [call.status.code.name for call in calls if call.status] == ["OK", "INTERNAL", "INTERNAL"]


def test_the_end_of_the_owner_ends_every_call_and_refuses_the_next(joined: Joined) -> None:
    waiting = joined.ask(b"question")
    joined.forwarding.close()
    late = ClientCall(joined.front, UNARY)
    joined.front.handle(late, b"question")
    assert [call.status.code for call in (waiting, late) if call.status] == [grpc.StatusCode.UNAVAILABLE] * 2


def test_the_end_of_a_front_end_cancels_its_calls(joined: Joined) -> None:
    joined.ask(b"question")
    joined.open()
    joined.owner.close()
    assert joined.cancelled == [True]
    assert joined.counted(UNARY, "CANCELLED") == joined.counted(STREAM, "CANCELLED") == 1


def test_shedding_and_the_load_are_what_the_owner_says(joined: Joined) -> None:
    joined.to_front.put(records.SHED, 0, records.write_seconds(0.25))
    joined.to_front.put(records.REPORT, 0, records.write_metadata((("load-bin", b"\x01"),)))
    joined.run()
    assert joined.forwarding.gathering.shedding.retry_after_s == 0.25
    assert joined.report.metadata == (("load-bin", b"\x01"),)
    assert joined.front.is_sheddable(UNARY)
    assert not joined.front.is_sheddable(STREAM)


def test_metadata_of_one_form_are_read_once_also_where_there_are_none(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, original = list[bytes](), records.read_metadata

    def read_metadata(written: bytes) -> Any:
        read.append(written)
        return original(written)

    monkeypatch.setattr(records, "read_metadata", read_metadata)
    for metadata in ((), (("a", "b"),)) * 3:
        joined.ask(b"question", metadata=metadata)
    assert read == [records.write_metadata(()), records.write_metadata((("a", "b"),))]


def test_metadata_of_many_forms_take_no_more_memory_than_a_few(joined: Joined) -> None:
    for number in range(3000):
        joined.ask(b"question", metadata=(("traceparent", str(number)),))
        joined.calls.pop().reply(b"")
    joined.run()
    assert len(joined.forwarding._written) <= forwarding_module._MOST_KNOWN
    assert len(joined.owner._read) <= forwarding_module._MOST_KNOWN
