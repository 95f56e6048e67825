"""JSON that is written fast: the same to whoever reads it, with orjson and without."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.http import json_text
from inferry_server.http.json_text import object_of, written

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.just("\ud800"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=9,
)  # fmt: skip


@pytest.mark.parametrize("fast", [True, False])
@given(value=VALUES)
def test_what_is_written_is_read_as_it_was(fast: bool, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(json_text, "orjson", None)
        assert repr(json.loads(written(value))) == repr(value)


@given(
    st.dictionaries(st.text(), VALUES, min_size=1, max_size=3),
    st.dictionaries(st.text(min_size=1).map("list".__add__), st.lists(VALUES, max_size=3), max_size=2),
)
def test_lists_may_be_written_before(fields: dict[str, Any], lists: dict[str, list[Any]]) -> None:
    text = object_of(fields, {name: [written(item) for item in items] for name, items in lists.items()})
    assert json.loads(text) == fields | lists
