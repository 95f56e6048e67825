"""The most probable classes of a row, and how the protocol's classification extension writes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSIFIABLE = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")


def top_classes(scores: NDArray[Any], count: int) -> list[int]:
    """Indices of the highest scores, highest first; ties by lower index, NaN last.

    Args:
        scores: `(K,)`, any number type.
        count: how many; more than K gives K.
    """
    last = len(scores) - 1
    # Stable and ascending over the reversed scores, read backwards: descending, ties by lower index.
    order = last - np.argsort(scores[::-1], kind="stable")[::-1]
    if scores.dtype.kind == "f":
        is_nan = np.isnan(scores[order])
        order = np.concatenate([order[~is_nan], order[is_nan]])
    return [int(index) for index in order[:count]]


def classify(scores: NDArray[Any], count: int, labels: Sequence[str]) -> NDArray[np.object_]:
    """The extension's reply: `value:index` or `value:index:label`, each as bytes.

    Args:
        scores: `(N, K)`, any number type.
        count: classes wanted of each row.
        labels: label i names class i; empty for none.

    Returns:
        `(N, min(count, K))` of bytes.
    """
    rows = [[_element(row, index, labels) for index in top_classes(row, count)] for row in scores]
    texts = np.empty((len(scores), min(count, scores.shape[1])), dtype=object)
    for i, row in enumerate(rows):
        texts[i, :] = row
    return texts


def _element(row: NDArray[Any], index: int, labels: Sequence[str]) -> bytes:
    label = label_of(labels, index)
    return f"{row[index]:f}:{index}{label and f':{label}'}".encode()


def label_of(labels: Sequence[str], index: int) -> str:
    """The label of a class; empty where it has none."""
    return labels[index] if index < len(labels) else ""
