"""`make bench-costs` tells the threads of a server apart."""

from bench.request_costs import READING_THREAD, by_name


def test_the_thread_that_was_busiest_in_between_reads_whatever_the_main_thread_had_used_before() -> None:
    before = {("python", "1"): 3.0, ("python", "2"): 0.5, ("event_engine", "3"): 0.25}
    after = {("python", "1"): 3.5, ("python", "2"): 2.5, ("event_engine", "3"): 0.5, ("python", "4"): 0.25}
    assert by_name(before, after) == {READING_THREAD: 2.0, "gRPC's own threads": 0.25, "other threads": 0.75}
