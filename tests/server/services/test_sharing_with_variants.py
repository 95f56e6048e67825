"""How much a base and its variant on the same cores answer in time, in simulated time; beside what is possible.

The possible: the variant takes as many requests as it needs to, so that the cores suffice, k times as fast as the base.
"""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from inferry_proto.variants import ALL, NONE
from inferry_server.batching.policy import BatchingPolicy, Lane
from testkit.degrading import Asking, Sharing, Version

POLICY = BatchingPolicy(max_batch_size=64, max_request_rows=64, max_queue_size=2048, max_queue_bytes=1 << 20)
BATCH_S = 0.01  # of a full one
CAPACITY = POLICY.max_batch_size / BATCH_S  # rows a second of the base
_PHASES = (Phase.explicit, Phase.generate)  # each schedule takes a part of a second: none is looked for that is shorter
BEGUN_S, ENDS_S = 1.0, 2.2  # what comes between them is judged


def sharing(times: float, *, fixed: float = 0.2, **more: object) -> tuple[Sharing, Version, Version]:
    """A base and a variant so many times as fast, of whose full batch a part takes as long for one row."""
    shared = Sharing()
    a, b = fixed * BATCH_S, (1 - fixed) * BATCH_S / POLICY.max_batch_size
    base = shared.add("base", POLICY, a, b)
    return shared, base, shared.add("variant", POLICY, a / times, b / times, variant="int8", **more)


def asked(
    load: float, *, seed: int | None = None, since: float = 0.0, until: float = ENDS_S, **how: object
) -> list[Asking]:
    """Requests at so many times the base's capacity: evenly, or by chance."""
    rate = load * CAPACITY / Asking(0.0, **how).rows  # type: ignore[arg-type]
    chance, at, requests = random.Random(seed), since, []
    while (at := at + (1 / rate if seed is None else chance.expovariate(rate))) < until:
        requests.append(Asking(at, **how))  # type: ignore[arg-type]
    return requests


def judged(requests: Sequence[Asking], *, since: float = BEGUN_S) -> list[Asking]:
    return [one for one in requests if one.at >= since]


def share(requests: Sequence[Asking], is_one: Callable[[Asking], bool]) -> float:
    return sum(map(is_one, requests)) / len(requests)


def useful(requests: Sequence[Asking]) -> float:
    return share(requests, lambda one: one.is_useful)


def by_variant(requests: Sequence[Asking]) -> float:
    return share(requests, lambda one: one.by == "variant")


def possible(requests: Sequence[Asking], times: float) -> float:
    """The share of them that could be answered: at best all of the cores compute them with the variant."""
    rows = sum(one.rows for one in requests)
    return min(1.0, times * CAPACITY * (ENDS_S - BEGUN_S) / rows)


@pytest.mark.parametrize("times", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("seed", [None, 1])
def test_at_twice_the_capacity_nearly_all_that_is_possible_is_useful(times: float, seed: int | None) -> None:
    shared, *_ = sharing(times)
    requests = judged(shared.play(asked(2.0, seed=seed)))
    assert useful(requests) >= 0.97 * possible(requests, times)


@settings(max_examples=9, phases=_PHASES)
@given(
    times=st.floats(1.2, 4.0),
    load=st.floats(1.05, 3.0),
    rows=st.sampled_from([4, 8, 16, 32]),
    fixed=st.floats(0.05, 0.4),
)
@example(times=2.0, load=2.05, rows=8, fixed=0.2)
def test_above_the_capacity_nearly_all_that_is_possible_is_useful(
    times: float, load: float, rows: int, fixed: float
) -> None:
    shared, *_ = sharing(times, fixed=fixed)
    requests = judged(shared.play(asked(load, rows=rows)))
    # The queue, as long as the deadline at most, may be long when the first of them comes, and short at the end.
    assert useful(requests) >= 0.93 * possible(requests, times)


@settings(max_examples=6, phases=_PHASES)
@given(times=st.floats(1.2, 4.0), load=st.floats(0.1, 0.7), seed=st.none() | st.integers(0, 1 << 16))
def test_what_the_base_can_meet_alone_is_never_degraded(times: float, load: float, seed: int | None) -> None:
    shared, *_ = sharing(times)
    requests = shared.play(asked(load, seed=seed))
    assert by_variant(requests) == 0
    assert useful(requests) == 1


@pytest.mark.parametrize("times", [1.5, 3.0])
@pytest.mark.parametrize("before", [2.0, 5.0])
def test_when_the_load_falls_below_the_capacity_the_base_answers_everything_again(times: float, before: float) -> None:
    shared, *_ = sharing(times)
    requests = shared.play([*asked(before, until=1.0), *asked(0.8, since=1.0, until=4.5, seed=3)])
    after = judged(requests, since=2.5)
    assert by_variant(after) == 0
    assert useful(after) == 1


@pytest.mark.parametrize(("times", "load"), [(1.5, 1.3), (2.0, 1.5), (2.0, 2.0), (3.0, 2.0)])
def test_base_and_variant_share_steadily_what_both_can_compute(times: float, load: float) -> None:
    shared, *_ = sharing(times)
    requests = shared.play(asked(load, until=4.0))
    slots = [judged(requests, since=at) for at in (1.5, 2.0, 2.5, 3.0, 3.5)]
    shares = [by_variant([one for one in slot if one.at < slot[0].at + 0.5]) for slot in slots]
    assert max(shares) - min(shares) < 0.1, shares


def test_who_accepts_no_variant_keeps_a_quarter_of_the_cores() -> None:
    shared, *_ = sharing(2.0)
    requests = judged(shared.play([*asked(2.0), *asked(0.25, accepts=NONE)]))
    assert useful([one for one in requests if one.accepts is NONE]) > 0.95
    assert useful([one for one in requests if one.accepts is ALL]) > 0.97 * 0.75


def test_who_accepts_a_variant_takes_no_room_from_who_does_not() -> None:
    shared, *_ = sharing(2.0)
    requests = judged(shared.play([*asked(0.5), *asked(2.0, accepts=NONE)]))
    accepting = [one for one in requests if one.accepts is ALL]
    assert (useful(accepting), by_variant(accepting)) == (1.0, 1.0)
    assert useful([one for one in requests if one.accepts is NONE]) > 0.95 * 0.5 / 2  # whose queue is always full


def test_a_variant_with_many_requests_of_its_own_leaves_the_base_half_of_the_cores() -> None:
    shared, *_ = sharing(2.0)
    requests = judged(shared.play([*asked(1.0), *asked(4.0, model="variant")]))
    assert useful([one for one in requests if one.model == "base"]) > 0.5


def test_a_third_model_gets_what_it_would_beside_two() -> None:
    shared, *_ = sharing(2.0)
    shared.add("other", POLICY, 0.002, 0.008 / 64)
    requests = judged(shared.play([*asked(2.0), *asked(2.0, model="other")]))
    assert useful([one for one in requests if one.model == "other"]) > 0.95 / 3 / 2
    assert useful([one for one in requests if one.model == "base"]) > 0.9 * (2 / 3) * 0.75


def test_a_variant_that_is_slower_than_its_base_answers_nothing_for_it() -> None:
    shared, *_ = sharing(0.8)
    requests = judged(shared.play(asked(2.0)))
    assert by_variant(requests) == 0
    assert useful(requests) > 0.47


def test_a_variant_whose_batches_fail_is_asked_once_a_second() -> None:
    shared, *_ = sharing(2.0, fails=True)
    requests = shared.play(asked(2.0))
    failed = share(requests, lambda one: isinstance(one.error, RuntimeError))
    assert failed < 0.1
    assert useful(judged(requests)) > 0.45


def test_a_variant_that_becomes_slower_than_its_base_is_asked_no_more_within_seconds() -> None:
    shared, *_ = sharing(2.0, slowness=lambda now: 1.0 if now < 1.0 else 4.0)
    requests = judged(shared.play(asked(2.0, until=5.0)), since=4.0)
    assert by_variant(requests) < 0.05
    assert useful(requests) > 0.9 * 0.5


@pytest.mark.parametrize(("times", "load"), [(2.0, 1.8), (1.5, 3.0)])
def test_requests_without_a_deadline_are_answered_as_far_as_there_is_room(times: float, load: float) -> None:
    shared, *_ = sharing(times)
    requests = judged(shared.play(asked(load, patience_s=None, until=4.0)), since=2.5)  # a long queue drains first
    assert useful(requests) >= 0.9 * min(1.0, times / load)


def test_bulk_requests_relieve_no_base() -> None:
    shared, base, _ = sharing(2.0)
    people = asked(0.3, rows=1, seed=1)
    shared.play([*asked(3.0, lane=Lane.BULK, patience_s=None), *people])
    assert base.observer.degraded > 0  # the bulk lane is full
    assert by_variant(judged(people)) == 0
    assert not base.batcher.relief.active


def test_turns_come_sooner_for_what_is_more_than_a_batch() -> None:
    shared, _, variant = sharing(2.0)
    told: list[float] = []

    def tell(base: str, compute_s: float) -> None:
        told.append(compute_s)

    variant.seat.compute_instead = tell  # type: ignore[method-assign]
    for asking in asked(1.0, until=64 / CAPACITY + 1e-6):  # a batch
        shared.queue(variant, asking)
    variant.batcher.compute_instead("base", 8)
    assert told == []
    shared.queue(variant, Asking(0.0))
    variant.batcher.compute_instead("base", 8)
    assert told == pytest.approx([8 / (2 * CAPACITY)])


def test_a_variant_with_a_device_of_its_own_takes_only_what_the_base_refuses() -> None:
    shared, base, variant = sharing(2.0)
    base.share_of_cores = variant.share_of_cores = 0.5
    shared.play(asked(2.0))
    assert base.observer.degraded > 0
    assert not base.batcher.relief.active
