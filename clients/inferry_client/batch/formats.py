"""The answers of one part as the bytes of a file: the same answers always make the same bytes."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from inferry_client.batch.plan import Plan


@dataclass(frozen=True)
class Answers:
    """Of the pictures of a part that have some.

    Attributes:
        ids: of their records, in order.
        probabilities: `(N, K)` float32, in that order.
        labels: label i names class i; there may be fewer than classes.
    """

    ids: Sequence[str]
    probabilities: NDArray[np.float32]
    labels: tuple[str, ...]


def part_bytes(answers: Answers, plan: Plan) -> bytes:
    """The part file in the plan's format."""
    return FORMATS[plan.output](answers, plan)


def _columns(answers: Answers, plan: Plan) -> dict[str, Any]:
    """Each column as a list; lists in lists are the labels of a picture."""
    probabilities = answers.probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, : plan.top_k]  # ties: the lower index, as servers do
    best = order[:, 0]
    count = len(answers.ids)
    named = (*answers.labels, *[""] * probabilities.shape[1])  # classes beyond the labels have no names
    columns: dict[str, Any] = {
        "id": list(answers.ids),
        "label": [named[index] for index in best],
        "index": best.tolist(),
        "probability": probabilities[np.arange(count), best],
        "model": [plan.model] * count,
        "model_version": [plan.model_version] * count,
    }
    if plan.top_k > 1:
        columns["top_labels"] = [[named[index] for index in row] for row in order]
        columns["top_indexes"] = order.tolist()
        columns["top_probabilities"] = list(np.take_along_axis(probabilities, order, axis=1))
    if plan.all_probabilities:
        columns["probabilities"] = list(probabilities)
    return columns


def _parquet(answers: Answers, plan: Plan) -> bytes:
    types = {
        "index": pa.int32(), "probability": pa.float32(), "top_labels": pa.list_(pa.string()),
        "top_indexes": pa.list_(pa.int32()), "top_probabilities": pa.list_(pa.float32()),
        "probabilities": pa.list_(pa.float32()),
    }  # fmt: skip
    columns = _columns(answers, plan)
    table = pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _csv(answers: Answers, plan: Plan) -> bytes:
    columns = {name: [_cell(value) for value in values] for name, values in _columns(answers, plan).items()}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode("utf-8", "backslashreplace")


def _jsonl(answers: Answers, plan: Plan) -> bytes:
    columns = {name: [_plain(value) for value in values] for name, values in _columns(answers, plan).items()}
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _plain(value: Any) -> Any:
    """As JSON has it; a float32 with the digits that tell it from its neighbours, not with those of a float64."""
    if isinstance(value, np.float32):
        return float(str(value))
    if isinstance(value, np.ndarray | list):
        return [_plain(item) for item in value]
    return value


def _cell(value: Any) -> Any:
    plain = _plain(value)
    return json.dumps(plain) if isinstance(plain, list) else plain


FORMATS: dict[str, Callable[[Answers, Plan], bytes]] = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}
