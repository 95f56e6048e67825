"""Whose trace a request belongs to, by the letter of W3C Trace Context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inferry_server.telemetry.trace_context import caller_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_callers_trace_is_read() -> None:
    context = caller_context((("user-agent", "x"), ("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=1")))
    assert context is not None
    assert (context.trace_id, context.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert context.sampled
    assert context.trace_state == "a=1"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_only_the_lowest_flag_says_whether_to_trace(flags: str, sampled: bool) -> None:
    context = caller_context((("traceparent", f"00-{TRACE}-{SPAN}-{flags}"),))
    assert context is not None
    assert context.sampled is sampled


@pytest.mark.parametrize(
    "header",
    [
        "",
        "01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_what_is_malformed_is_as_if_it_had_not_come(header: str) -> None:
    assert caller_context((("traceparent", header),)) is None


def test_two_traces_are_none_and_a_later_version_may_say_more() -> None:
    parent = ("traceparent", f"00-{TRACE}-{SPAN}-01")
    assert caller_context((parent, parent)) is None
    assert caller_context((("traceparent", b"\x00"),)) is None
    assert caller_context((("traceparent", f"cc-{TRACE}-{SPAN}-01-what-will-be"),)) is not None


hexadecimal = st.sampled_from("0123456789abcdefg")


@given(
    st.tuples(
        st.text(hexadecimal, min_size=2, max_size=2),
        st.text(hexadecimal, min_size=32, max_size=32),
        st.text(hexadecimal, min_size=16, max_size=16),
        st.text(hexadecimal, min_size=2, max_size=2),
    ).map("-".join)
    | st.from_regex(r"\A0[01]-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3](-x)?\Z")
)
def test_opentelemetry_reads_the_same(header: str) -> None:
    context = caller_context((("traceparent", header),))
    theirs = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": header})).get_span_context()
    assert (context is not None) is theirs.is_valid
    if context is not None:
        assert (context.trace_id, context.span_id) == (theirs.trace_id, theirs.span_id)
        assert context.sampled is theirs.trace_flags.sampled
