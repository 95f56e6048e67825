from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from inferry_server.models.traffic import choose_label

weights_ = st.dictionaries(st.sampled_from("abc"), st.integers(0, 100), min_size=1).filter(lambda w: any(w.values()))


@given(weights_, st.text(max_size=20), st.integers(0, 10**9))
def test_only_a_label_with_weight_is_ever_chosen(weights: dict[str, int], request_id: str, turn: int) -> None:
    assert weights[choose_label(weights, request_id=request_id, turn=turn)] > 0


@given(st.text(min_size=1), st.integers(), st.integers())
def test_a_request_with_an_id_always_goes_the_same_way(request_id: str, turn: int, later: int) -> None:
    weights = {"stable": 1, "canary": 1}
    chosen = choose_label(weights, request_id=request_id, turn=turn)
    assert choose_label(weights, request_id=request_id, turn=later) == chosen


def test_labels_are_chosen_as_often_as_their_weights_say() -> None:
    weights = {"stable": 90, "canary": 10}
    by_turn = Counter(choose_label(weights, request_id="", turn=turn) for turn in range(1000))
    assert 95 <= by_turn["canary"] <= 105
    by_id = Counter(choose_label(weights, request_id=f"request-{i}", turn=0) for i in range(5000))
    assert 400 <= by_id["canary"] <= 600
