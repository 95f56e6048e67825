"""Models that share the cores: what holds for every mix of them, in simulated time."""

import heapq
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_server.batching.fair_share import Claim, FairQueue

CORES = 4


@dataclass
class Model:
    """Computes batch after batch, on every instance.

    Attributes:
        costs: seconds of its batches, over and over.
        instances: that share the cores.
        starts_at: before, it has nothing to compute.
        pause_s: between its batches; None where the next one waits already.
        instead_of: the number of the model in whose place it computes every batch; None for none.
    """

    costs: tuple[float, ...]
    instances: int = 1
    starts_at: float = 0.0
    pause_s: float | None = None
    instead_of: int | None = None


@dataclass
class Batch:
    model: int
    cores: int
    asked: float
    began: float
    ended: float


def simulate(models: list[Model], until: float, *, cores: int = CORES) -> list[Batch]:
    """Every batch that began in time; the cores are never given twice."""
    queue = FairQueue(cores)
    order = itertools.count()
    events: list[tuple[float, int, Claim]] = []
    costs = [itertools.cycle(model.costs) for model in models]
    asked: dict[Claim, float] = {}
    running: dict[Claim, Batch] = {}
    batches = []
    for number, model in enumerate(models):
        for _ in range(model.instances):
            claim = Claim(str(number), cores // model.instances)
            heapq.heappush(events, (model.starts_at, next(order), claim))
    while events and events[0][0] < until:
        now, _, claim = heapq.heappop(events)
        model = models[int(claim.model)]
        if claim in running:
            batch = running.pop(claim)
            granted = queue.done(claim, batch.ended - batch.began, again=model.pause_s is None)
            if model.pause_s is None:
                asked[claim] = now
            else:
                heapq.heappush(events, (now + model.pause_s, next(order), claim))
        else:
            asked[claim] = now
            granted = queue.ask(claim)
        for next_one in [*granted, *queue.grants()]:  # what computes alone is granted its next turn when it comes
            ends = now + next(costs[int(next_one.model)])
            if (base := models[int(next_one.model)].instead_of) is not None:
                queue.compute_instead(next_one, str(base), ends - now)
            running[next_one] = Batch(int(next_one.model), next_one.cores, asked[next_one], now, ends)
            batches.append(running[next_one])
            heapq.heappush(events, (ends, next(order), next_one))
        assert sum(batch.cores for batch in running.values()) <= cores
    return batches


def core_seconds(batches: list[Batch], model: int, since: float, until: float) -> float:
    return sum(
        max(0.0, min(batch.ended, until) - max(batch.began, since)) * batch.cores
        for batch in batches
        if batch.model == model
    )


saturated = st.builds(
    Model,
    costs=st.lists(st.floats(0.001, 0.1), min_size=1, max_size=4).map(tuple),
    instances=st.sampled_from([1, 2, 4]),
    starts_at=st.floats(0, 2),
)


@settings(max_examples=400)
@given(st.lists(saturated, min_size=2, max_size=5), st.floats(0.5, 4))
def test_busy_models_are_given_equal_core_seconds_from_any_time_to_any_other(
    models: list[Model], seconds: float
) -> None:
    since = 2.0  # by now all are busy
    batches = simulate(models, since + seconds)
    given_ = [core_seconds(batches, number, since, since + seconds) for number in range(len(models))]
    largest = max(cost for model in models for cost in model.costs) * CORES
    assert max(given_) - min(given_) <= 3 * largest  # batches in flight, and charged before they were known


@pytest.mark.parametrize("slow_s", [0.1, 1.0])
def test_a_model_with_slow_batches_does_not_starve_one_with_fast_ones(slow_s: float) -> None:
    batches = simulate([Model((slow_s,)), Model((0.001,))], 20)
    slow, fast = (core_seconds(batches, number, 0, 20) for number in (0, 1))
    assert fast / slow == pytest.approx(1, abs=2 * slow_s / 10)


@settings(max_examples=200)
@given(st.lists(saturated.filter(lambda model: model.instances == 1), min_size=1, max_size=4), st.floats(0.2, 1))
def test_a_model_that_asks_now_and_then_waits_for_one_batch_of_each_other_at_most(
    models: list[Model], pause_s: float
) -> None:
    models.append(Model((0.001,), starts_at=2.5, pause_s=pause_s))
    batches = simulate(models, 8)
    own = [batch for batch in batches if batch.model == len(models) - 1]
    assert own
    bound_s = sum(max(model.costs) for model in models[:-1])
    for batch in own:
        assert batch.began - batch.asked <= bound_s + 1e-9


uneven = st.builds(Model, costs=st.lists(st.floats(0.01, 0.1), min_size=1, max_size=4).map(tuple))


@settings(max_examples=50)
@given(uneven, uneven, st.lists(uneven, max_size=2))
def test_a_variant_in_its_bases_place_gets_three_quarters_of_both(
    base: Model, variant: Model, others: list[Model]
) -> None:
    variant.instead_of = 0
    batches = simulate([base, variant, *others], 12.0)
    of_base, of_variant = (core_seconds(batches, number, 2.0, 12.0) for number in (0, 1))
    largest = CORES * max(cost for model in (base, variant, *others) for cost in model.costs)
    assert of_variant - 3 * of_base == pytest.approx(0, abs=12 * largest)


@settings(max_examples=50)
@given(uneven, uneven, st.lists(uneven, min_size=1, max_size=3))
def test_other_models_get_what_they_would_beside_two_models(base: Model, variant: Model, others: list[Model]) -> None:
    variant.instead_of = 0
    batches = simulate([base, variant, *others], 8.0)
    of_base, of_variant, *of_others = (core_seconds(batches, n, 2.0, 8.0) for n in range(2 + len(others)))
    largest = CORES * max(cost for model in (base, variant, *others) for cost in model.costs)
    for given_ in of_others:
        assert given_ == pytest.approx((of_base + of_variant) / 2, abs=4 * largest)


def test_twice_the_capacity_of_a_base_is_answered_beside_a_variant_two_and_a_half_times_as_fast() -> None:
    batches = simulate([Model((0.05,)), Model((0.02,), instead_of=0)], 20)
    assert len(batches) * 0.05 / 20 == pytest.approx(2.125, rel=0.02)  # a quarter, and three quarters of 2.5
    halves = simulate([Model((0.05,)), Model((0.02,))], 20)
    assert len(halves) * 0.05 / 20 == pytest.approx(1.75, rel=0.02)


def test_what_a_variant_computes_for_itself_is_not_charged_to_its_base() -> None:
    queue = FairQueue(1)
    base, variant = Claim("base", 1), Claim("variant", 1)
    granted = queue.ask(base) + queue.ask(variant)
    turns = []
    for _ in range(200):
        queue.compute_instead(variant, "base", 1e-6)  # one row among many of its own
        (claim,) = granted or queue.grants()
        turns.append(claim.model)
        granted = queue.done(claim, 0.01, again=True)
    assert turns.count("base") == pytest.approx(100, abs=2)


def test_a_base_whose_batch_takes_long_does_not_pay_for_that_with_many_turns() -> None:
    queue = FairQueue(2)
    slow, base, variant = Claim("base", 1), Claim("base", 2), Claim("variant", 1)
    assert queue.ask(slow) + queue.ask(variant) == [slow, variant]
    for _ in range(1000):  # beside the slow batch
        queue.compute_instead(variant, "base", 0.01)
        queue.done(variant, 0.01, again=True)
        assert queue.grants() == [variant]
    assert queue.ask(base) == []
    assert queue.done(slow, 0.01) == []
    turns = []
    for _ in range(100):
        turns.append("variant" if variant.granted else "base")
        queue.compute_instead(variant, "base", 0.01)
        queue.done(variant if variant.granted else base, 0.01, again=True)
        queue.grants()
    assert "base" in turns[:20]


def test_what_was_idle_has_saved_nothing_up() -> None:
    late = simulate([Model((0.01,)), Model((0.01,), starts_at=50)], 60)
    shares = [core_seconds(late, number, 50, 60) for number in (0, 1)]
    assert shares[0] == pytest.approx(shares[1], rel=0.01)


def test_what_computed_once_and_then_paused_has_saved_nothing_up_either() -> None:
    queue = FairQueue(1)
    paused, busy = Claim("paused", 1), Claim("busy", 1)
    assert queue.ask(paused) == [paused]
    assert queue.ask(busy) == []
    granted = queue.done(paused, 0.01)
    turns = []
    for step in range(300):
        (claim,) = granted or queue.grants()
        turns.append(claim.model)
        if step == 99:
            assert queue.ask(paused) == []
        granted = queue.done(claim, 0.01, again=True)
    assert turns[100:].count("busy") == pytest.approx(100, abs=2)


@settings(max_examples=200)
@given(st.lists(saturated, min_size=1, max_size=5))
def test_no_core_idles_while_a_batch_waits_that_fits(models: list[Model]) -> None:
    models = [Model(model.costs, 1, model.starts_at) for model in models]  # each batch takes every core
    batches = simulate(models, 6)
    starts = min(model.starts_at for model in models)
    for before, after in itertools.pairwise(batches):
        assert after.began == pytest.approx(before.ended)
    assert batches[0].began == starts


def test_a_batch_that_needs_every_core_is_not_overtaken_for_ever() -> None:
    queue = FairQueue(2)
    narrow, other, wide = Claim("narrow", 1), Claim("other", 1), Claim("wide", 2)
    assert queue.ask(narrow) == [narrow]
    assert queue.ask(wide) == []
    assert queue.ask(other) == []
    assert queue.done(narrow, 1.0) == [wide]
    assert queue.done(wide, 1.0) == [other]


def test_more_threads_than_cores_run_alone_rather_than_never() -> None:
    queue = FairQueue(2)
    one, two = Claim("a", 8), Claim("b", 8)
    assert queue.ask(one) == [one]
    assert queue.ask(two) == []
    assert queue.withdraw(one) == [two]


def test_what_is_withdrawn_costs_nothing_and_leaves_nothing_behind() -> None:
    queue = FairQueue(1)
    claims = [Claim(name, 1) for name in "abc"]
    granted = [queue.ask(claim) for claim in claims]
    assert granted == [[claims[0]], [], []]
    assert queue.withdraw(claims[1]) == []
    assert queue.withdraw(claims[0]) == [claims[2]]
    assert queue.done(claims[2], 1.0) == []
    assert not queue._accounts
