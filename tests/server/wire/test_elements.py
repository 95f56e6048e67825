"""BYTES on the wire: elements read back as written, and nothing is read past their end."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.wire.elements import bytes_to_elements, elements_to_bytes


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_bytes_elements_read_back_as_written(elements: list[bytes]) -> None:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    assert list(bytes_to_elements(elements_to_bytes(array), len(elements))) == elements


@given(st.binary(max_size=40), st.integers(0, 5))
def test_broken_bytes_tensors_never_read_past_their_end(noise: bytes, count: int) -> None:
    try:
        elements = bytes_to_elements(noise, count)
    except ValueError:
        return
    assert elements_to_bytes(elements) == noise
