"""Rows are shown to be independent by values, or are not shown to be: models of one line, and what is said of them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_proto.datatypes import Arrays
from inferry_server.errors import InferenceError
from inferry_server.models.answer_rounding import Rounding
from inferry_server.models.row_independence import Examination, Finding, Verdict
from inferry_server.signature import Signature
from testkit.row_examination import FLOAT32, Array, Clock, judge, spec

EIGHT_BITS = 2.0**-8


def only_if(wanted: Callable[[Array], Any], mixed: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: np.where(wanted(x), mixed(x), x)


INDEPENDENT: dict[str, Callable[[Array], Array]] = {
    "itself": lambda x: x,
    "a product": lambda x: x @ np.eye(4, dtype=np.float32)[::-1],
    "along the row": lambda x: np.cumsum(x, axis=1),
    "sorted within the row": lambda x: np.sort(x, axis=1),
    "normalised by the row": lambda x: (x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1),
    "saturated": lambda x: np.clip(x, -1, 1),
    "not a number": lambda x: np.log(x),
}
MIXED: dict[str, Callable[[Array], Array]] = {
    "summed up": lambda x: np.cumsum(x, axis=0),
    "reversed": lambda x: x[::-1],
    "sorted": lambda x: np.sort(x, axis=0),
    "rotated": lambda x: np.roll(x, 1, axis=0),
    "normalised over rows": lambda x: (x - x.mean(0)) / (x.std(0) + 1),
    "the largest of all": lambda x: x - x.max(),
    "attention": lambda x: np.exp(x @ x.T / 1e3) @ x,
    "a whisper of the neighbours": lambda x: x + np.float32(1e-8) * x.sum(0),
    "nothing of the neighbours, but times them": lambda x: x + 0 * x.sum(0),
    "the rows before": lambda x: np.maximum.accumulate(x, axis=0),
    "equal rows once": lambda x: x / np.array([[(row == x).all(1).sum()] for row in x], np.float32),
    "by the number of rows": lambda x: x / len(x),
    "by the place": lambda x: x + np.float32(0.01) * np.arange(len(x), dtype=np.float32)[:, None],
    "only large values": only_if(lambda x: x > 1000, lambda x: x + x[:1]),
    "only negative values": only_if(lambda x: x < 0, lambda x: x.min(0, keepdims=True)),
    "only whole numbers": only_if(lambda x: (x == np.floor(x)) & (x > 9), lambda x: x.mean(0, keepdims=True)),
    "only from row 20 on": only_if(lambda x: np.arange(len(x))[:, None] >= 20, lambda x: x.mean(0, keepdims=True)),
    "only the last row of seven": only_if(
        lambda x: (np.arange(len(x)) == 6)[:, None] & (len(x) == 7), lambda x: x[:1] + 0 * x
    ),
    "in batches of thirteen": lambda x: x + (x.mean(0) if len(x) == 13 else 0),
    "only row 5 for row 18": only_if(lambda x: np.arange(len(x))[:, None] == 18, lambda x: x + x[min(5, len(x) - 1)]),
    "a share beside a time stamp": lambda x: np.concatenate(
        [np.float32(1.7e9) + x[:, :1], x[:, 1:] / (1 + np.abs(x[:, 1:]).sum(0))], 1
    ),
    "above the others' mean, beside a time stamp": lambda x: np.concatenate(
        [np.float32(1.7e9) + x[:, :1], (x[:, 1:] > x[:, 1:].mean(0)).astype(np.float32)], 1
    ),
    "fewer rows": lambda x: x[: (len(x) + 1) // 2],
    "a row a value": lambda x: x.reshape(-1, 1),
    "as wide as there are rows": lambda x: np.repeat(x[:, :1], len(x), axis=1),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_rows_that_are_computed_for_themselves_are_shown_to_be_independent(name: str) -> None:
    assert judge(INDEPENDENT[name]) == Finding(Verdict.INDEPENDENT)


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_are_computed_from_others_are_found(name: str) -> None:
    assert judge(MIXED[name]).verdict is Verdict.MIXED


@given(st.integers(2, 40), st.integers(0, 39), st.integers(0, 39), st.integers(1, 4), st.floats(1e-4, 1e4))
@settings(max_examples=60, deadline=None)
def test_whichever_row_reads_whichever_other_is_found_where_there_is_time(
    largest: int, reader: int, read: int, elements: int, weight: float
) -> None:
    reader, read = reader % largest, read % largest

    def model(x: Array) -> Array:
        y = x.copy()
        if max(reader, read) < len(x) and reader != read:
            y[reader, :elements] += np.float32(weight) * x[read, :elements]
        return y

    # An axis that is as long as the largest batch keeps one row away from it.
    found = judge(model, largest=largest + (largest == 4)).verdict
    assert found is (Verdict.INDEPENDENT if reader == read else Verdict.MIXED)


@given(st.integers(0, 1 << 32), st.sampled_from([1, 3, 12]))
@settings(max_examples=6, deadline=None)
def test_rounding_by_other_kernels_is_no_dependence(seed: int, depth: int) -> None:
    """Each number of rows sums in an order of its own, as kernels do; then the network amplifies it."""
    random = np.random.default_rng(seed)
    weights = [random.normal(size=(16, 16)).astype(np.float32) / 4 for _ in range(depth)]

    def model(x: Array) -> Array:
        for weight in weights:
            order = np.random.default_rng(len(x)).permutation(16)
            x = np.tanh(np.add.reduce([x[:, i : i + 1] * weight[i] for i in order], axis=0))
        return x

    assert judge(model, shape=(-1, 16), largest=8).verdict is Verdict.INDEPENDENT


def test_the_scale_of_many_rows_is_told_once() -> None:
    told: list[int] = []

    class Alone(list[Arrays]):
        def __iter__(self) -> Iterator[Arrays]:
            told.append(len(self))
            return super().__iter__()

    rows = [{"y": np.array([1.0, row], np.float32)} for row in range(100)]
    rounding = Rounding(Alone(rows), [0] * 100, precision=FLOAT32, batch=dict, nudged=dict)
    answers = [(row, one["y"], one["y"] + 1e-3) for row, one in enumerate(rows)]
    assert not any(rounding.differs("y", row, one, other) for row, one, other in answers)
    assert told == [100]


def test_steps_of_quantised_models_are_rounding_too() -> None:
    def model(x: Array) -> Array:
        noise = np.float32(1e-6) * len(x)  # tips a value over the edge of a step here and there
        return np.asarray(np.round(np.clip(x, -4, 4) * 32 + noise + 0.499999) / 32, np.float32)

    assert judge(model, precision=EIGHT_BITS).verdict is Verdict.INDEPENDENT


def test_an_output_that_never_changes_shows_nothing() -> None:
    finding = judge(lambda x: np.zeros_like(x))
    assert finding == Finding(Verdict.UNKNOWN, "output 'y' was the same for all rows that could be made up")


def test_a_model_that_fails_on_everything_or_answers_by_chance_shows_nothing() -> None:
    def fail(x: Array) -> Array:
        raise InferenceError("no")

    random = np.random.default_rng(0)
    for model, reason in (
        (fail, "it fails on all inputs that could be made up"),
        (lambda x: random.normal(size=x.shape).astype(np.float32), "it answers the same rows differently each time"),
    ):
        found = judge(model)
        assert found.verdict is Verdict.UNKNOWN
        assert found.reason.startswith(reason)


@pytest.mark.parametrize("datatype", ["FP64", "FP16", "BF16", "INT64", "INT8", "UINT8", "UINT64", "BOOL", "BYTES"])
def test_rows_of_every_datatype_are_told_apart(datatype: str) -> None:
    for shape in ((-1, 4), (-1,), (-1, 1, 2)):
        assert judge(lambda x: x, datatype=datatype, shape=shape).verdict is Verdict.INDEPENDENT
        assert judge(lambda x: x[::-1].copy(), datatype=datatype, shape=shape).verdict is Verdict.MIXED


def test_indices_stay_within_the_smallest_tables() -> None:
    table = np.arange(10, 12)

    def model(x: Array) -> Array:
        if x.min() < 0 or x.max() > 1:
            raise InferenceError("out of bounds")
        return np.asarray(table[x])

    assert judge(model, datatype="INT64").verdict is Verdict.INDEPENDENT
    assert judge(lambda x: model(x)[::-1], datatype="INT64").verdict is Verdict.MIXED


@pytest.mark.parametrize("smallest", [1, 5, 16, 30])
def test_free_lengths_are_tried_until_the_model_runs_and_axes_with_one_name_are_as_long(smallest: int) -> None:
    signature = Signature(
        (
            spec("ids", -1, -1, datatype="INT64", axes=("N", "words")),
            spec("mask", -1, -1, datatype="INT64", axes=("N", "words")),
        ),
        (spec("y", -1, 1),),
    )

    def judge_words(mix: bool) -> Verdict:
        def run(inputs: Arrays) -> Arrays:
            if inputs["ids"].shape != inputs["mask"].shape or inputs["ids"].shape[1] < smallest:
                raise InferenceError("no")
            y = (inputs["ids"] * inputs["mask"]).sum(1, keepdims=True).astype(np.float32)
            return {"y": y - y.mean() if mix else y}

        examined = Examination(run, signature, 8, FLOAT32, None, one_batch=False, budget_s=1.0, clock=Clock())
        return examined.judge().verdict

    assert (judge_words(False), judge_words(True)) == (Verdict.INDEPENDENT, Verdict.MIXED)


@pytest.mark.parametrize(("axes", "shown"), [((None, None), False), (("unk__1", "unk__2"), False), (("N", "N"), True)])
def test_inputs_whose_first_lengths_may_differ_are_no_batch_unless_they_have_one_name(
    axes: tuple[str | None, str | None], shown: bool
) -> None:
    inputs = (spec("left", -1, 2, axes=(axes[0], None)), spec("right", -1, 3, axes=(axes[1], None)))
    signature = Signature(inputs, (spec("a", -1, 2), spec("b", -1, 3)))
    examined = Examination(
        lambda given: {"a": given["left"], "b": given["right"]}, signature, 8, FLOAT32, None,
        one_batch=False, budget_s=1.0, clock=Clock(),
    )  # fmt: skip
    assert (examined.judge().verdict is Verdict.INDEPENDENT) is shown


def test_what_was_recorded_shows_what_nothing_made_up_does() -> None:
    def model(x: Array) -> Array:
        if not np.isin(x, [77777.0, 88888.0]).all():
            raise InferenceError("an unknown code")
        return x

    recorded = np.array([[77777.0] * 4, [88888.0] * 4, [77777.0, 88888.0] * 2], np.float32)
    assert judge(model).verdict is Verdict.UNKNOWN
    assert judge(model, recorded={"x": recorded}).verdict is Verdict.INDEPENDENT
    assert judge(lambda x: model(x)[::-1], recorded={"x": recorded}).verdict is Verdict.MIXED


MIXED_UNSEEN_BY_UNIFORM_VALUES: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "any flag of the batch": ("BOOL", lambda x: x & x.any(1, keepdims=True) | x.any() & ~x),
    "all flags of the batch": ("BOOL", lambda x: x ^ x.all()),
    "stretched to the batch's range": ("UINT8", lambda x: (x - x.min()) * (255 // max(1, int(x.max()) - int(x.min())))),
    "stretched, and with a sign": ("INT8", lambda x: x - x.min()),
    "any token of the batch": ("INT64", lambda x: x + x.max()),
    "louder than silence": ("FP32", lambda x: x + np.float32((x > 3).any())),
}


@pytest.mark.parametrize("row_s", [0.0, 0.05])
@pytest.mark.parametrize("name", MIXED_UNSEEN_BY_UNIFORM_VALUES)
def test_rows_differ_in_more_than_their_single_values(name: str, row_s: float) -> None:
    datatype, model = MIXED_UNSEEN_BY_UNIFORM_VALUES[name]
    found = judge(model, datatype=datatype, shape=(-1, 5000), clock=Clock(row_s))
    assert found.verdict is Verdict.MIXED


@pytest.mark.parametrize("row_s", [0.0, 0.03, 0.08])
@pytest.mark.parametrize("name", ["summed up", "the largest of all", "by the place", "attention"])
def test_slow_models_that_mix_only_large_batches_are_found_too(name: str, row_s: float) -> None:
    def model(x: Array) -> Array:
        return MIXED[name](x) if len(x) >= 8 else x

    assert judge(model, clock=Clock(row_s)).verdict is Verdict.MIXED


# Each mixes only where some value of the batch is a certain one, which the graph has or its type does.
MIXED_AT_ONE_VALUE: dict[str, tuple[str, tuple[float, ...], Callable[[Array], Any]]] = {
    "a threshold": ("FP32", (5.5, 1234.5), lambda x: x == 1234.5),
    "just above a threshold": ("FP32", (77.25,), lambda x: x == np.nextafter(np.float32(77.25), np.float32(100))),
    "an id": ("INT64", (50_256,), lambda x: x == 50_256),
    "the id behind it": ("INT32", (30_522,), lambda x: x == 30_523),
    "one of many": ("FP32", tuple(i + 0.125 for i in range(40)), lambda x: x == 39.125),
    "infinity": ("FP32", (), np.isinf),
    "less than nothing": ("FP64", (), np.isneginf),
    "the most": ("INT32", (), lambda x: x == np.iinfo(np.int32).max),
    "no number": ("FP16", (), np.isnan),
}


@pytest.mark.parametrize("row_s", [0.0, 0.05])
@pytest.mark.parametrize("name", MIXED_AT_ONE_VALUE)
def test_rows_that_mix_only_where_one_of_them_has_a_certain_value_are_found(name: str, row_s: float) -> None:
    datatype, constants, special = MIXED_AT_ONE_VALUE[name]

    def model(x: Array) -> Array:
        return np.flip(x, 0).copy() if special(x).any() else x

    found = judge(model, datatype=datatype, shape=(-1, 50), constants=constants, clock=Clock(row_s))
    assert found.verdict is (Verdict.INDEPENDENT if name == "one of many" and row_s else Verdict.MIXED)
    assert judge(lambda x: x, datatype=datatype, shape=(-1, 50), constants=constants).verdict is Verdict.INDEPENDENT


def test_values_of_what_was_recorded_are_tried_beside_other_rows() -> None:
    recorded = {"x": np.array([[0.0, 31.0], [7.0, 0.0]], np.float32)}

    def model(x: Array) -> Array:
        return x + x.sum(0) if (x == 31).all(1).any() else x  # a whole row of them, which nobody recorded

    assert judge(model, shape=(-1, 2), recorded=recorded).verdict is Verdict.MIXED


def test_what_a_model_fails_on_beside_a_row_leaves_the_usual_values_to_show_it() -> None:
    def model(x: Array) -> Array:
        if not np.isfinite(x).all() or (np.abs(x) > 1e30).any():
            raise InferenceError("no")
        return x + x.sum(0) if len(x) > 3 else x

    assert judge(model, clock=Clock(0.05)).verdict is Verdict.MIXED
