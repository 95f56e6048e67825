import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from inferry_server.runtime.capture_gate import CaptureGate


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_who_records_is_alone_and_everybody_gets_through(records: list[bool]) -> None:
    gate, lock = CaptureGate(), threading.Lock()
    inside: list[bool] = []
    seen: list[tuple[bool, ...]] = []

    def work(record: bool) -> None:
        with gate.recording() if record else gate.computing():
            with lock:
                inside.append(record)
                seen.append(tuple(inside))
            with lock:
                inside.remove(record)

    with ThreadPoolExecutor(len(records)) as pool:
        list(pool.map(work, records))
    assert len(seen) == len(records)
    assert all(together == (True,) for together in seen if True in together)


def test_many_compute_side_by_side() -> None:
    gate, both = CaptureGate(), threading.Barrier(2)

    def work(_: int) -> None:
        with gate.computing():
            both.wait(timeout=30)  # passes only if the other one is inside too

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
