"""Which variants may answer in place of a version: the rules, without a server."""

import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inferry_proto.manifest_pb2 import Gate, ModelManifest, Preprocessing, VariantOf
from inferry_proto.variants import ALL, NONE, read_accepted, write_accepted
from inferry_server.models.registry import IndexEntry, ModelRegistry, State
from inferry_server.models.variants import MadeOf, in_order, made_of, share_a_device, variants_of
from inferry_server.models.version import ServedVersion
from inferry_server.signature import Signature

SHA, MOST = "ab" * 32, 0.1
INT8 = MadeOf("mnist", SHA, "int8", 0.05)
FLOAT16 = MadeOf("mnist", SHA, "float16", 0.0)


@dataclass(frozen=True)
class Version:
    """What the rules look at."""

    model: str = "mnist"
    model_sha256: str = SHA
    signature: Signature = field(default_factory=lambda: Signature((), ()))
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    max_request_rows: int = 32
    provider: str = "CPU"
    gpus: tuple[int, ...] = ()
    share_of_cores: float = 1.0
    made_of: MadeOf | None = None
    capacity_rows_per_s: float = 0.0


BASE = Version(capacity_rows_per_s=100.0)
VARIANT = Version("mnist-int8", "cd" * 32, made_of=INT8, capacity_rows_per_s=200.0)


def test_a_version_made_of_the_very_graph_within_the_bound_is_a_variant() -> None:
    assert variants_of(BASE, [BASE, VARIANT], most_points=MOST) == (VARIANT,)
    gained = replace(VARIANT, made_of=replace(INT8, points_lost=-0.2))
    assert variants_of(BASE, [gained], most_points=0.0) == (gained,)


@pytest.mark.parametrize(
    "other",
    [
        replace(VARIANT, made_of=None),
        replace(VARIANT, made_of=replace(INT8, model="fashion")),
        replace(VARIANT, made_of=replace(INT8, sha256="ef" * 32)),  # of weights of another epoch
        replace(VARIANT, made_of=replace(INT8, points_lost=0.1001)),
        replace(VARIANT, made_of=replace(INT8, points_lost=math.nan)),
        replace(VARIANT, signature=cast("Signature", "another")),
        replace(VARIANT, labels={"scores": ("one", "zero")}),
        replace(VARIANT, preprocessing=Preprocessing(height=28)),
        replace(VARIANT, max_request_rows=0),
    ],
    ids=["no manifest", "other model", "other weights", "loss", "no loss", "tensors", "labels", "pixels", "no rows"],
)
def test_a_version_that_callers_would_notice_is_none(other: Version) -> None:
    assert variants_of(BASE, [other], most_points=MOST) == ()


def test_a_variant_has_no_variants_itself() -> None:
    other = replace(VARIANT, made_of=MadeOf(VARIANT.model, VARIANT.model_sha256, "float16", 0.0))
    assert variants_of(VARIANT, [VARIANT, other], most_points=MOST) == ()


def test_the_fastest_that_is_accepted_goes_first_and_a_slower_one_than_the_version_itself_never() -> None:
    half = replace(VARIANT, model="mnist-float16", made_of=FLOAT16, capacity_rows_per_s=150.0)
    assert in_order(BASE, [half, VARIANT], ALL) == [VARIANT, half]
    assert in_order(BASE, [half, VARIANT], frozenset({"float16"})) == [half]
    assert in_order(BASE, [half, VARIANT], NONE) == ()
    slow = replace(half, capacity_rows_per_s=100.0)
    assert in_order(BASE, [slow, VARIANT], ALL) == [VARIANT]
    elsewhere = replace(slow, provider="CUDA")  # takes nothing of the device that is busy
    assert in_order(BASE, [elsewhere], ALL) == [elsewhere]
    assert in_order(BASE, [replace(half, capacity_rows_per_s=0.0)], ALL) != []  # not measured yet


@pytest.mark.parametrize(
    ("of_base", "of_variant", "shared"),
    [
        (((), 1.0), ((), 1.0), True),
        (((), 0.5), ((), 0.75), True),
        (((), 0.5), ((), 0.5), False),  # the cores suffice for both
        (((0,), 0.0), ((0, 1), 0.0), True),
        (((0,), 0.0), ((1,), 0.0), False),
        (((), 2.0), ((0,), 0.0), False),
    ],
)
def test_versions_share_a_gpu_or_cores_that_do_not_suffice_for_both(
    of_base: tuple[tuple[int, ...], float], of_variant: tuple[tuple[int, ...], float], *, shared: bool
) -> None:
    base, variant = (
        replace(one, gpus=gpus, share_of_cores=cores) for one, (gpus, cores) in ((BASE, of_base), (VARIANT, of_variant))
    )
    assert share_a_device(base, variant) is shared
    assert share_a_device(variant, base) is shared


def manifest(**changed: Any) -> ModelManifest:
    stated: dict[str, Any] = {
        "precision": "int8",
        "variant_of": VariantOf(model_name="mnist", model_sha256=SHA),
        "gates": [Gate(name="accuracy-drop", outcome=Gate.PASSED, figures={"points": 0.05, "points_limit": 0.1})],
    }
    return ModelManifest(**stated | changed)


def test_the_manifest_says_what_a_version_was_made_of_and_what_it_lost() -> None:
    assert made_of(manifest()) == INT8


@pytest.mark.parametrize(
    "stated",
    [
        None,
        ModelManifest(precision="int8"),
        manifest(precision="float32"),
        manifest(variant_of=VariantOf(model_name="mnist")),
        manifest(variant_of=VariantOf(model_sha256=SHA)),
        manifest(gates=[]),
        manifest(gates=[Gate(name="accuracy-drop", outcome=Gate.NOT_APPLICABLE, figures={"points": 0.0})]),
        manifest(gates=[Gate(name="accuracy-drop", outcome=Gate.PASSED)]),
        manifest(gates=[Gate(name="parity", outcome=Gate.PASSED, figures={"points": 0.0})]),
    ],
)
def test_a_manifest_that_does_not_say_all_of_it_makes_no_variant(stated: ModelManifest | None) -> None:
    assert made_of(stated) is None


@pytest.mark.parametrize(
    ("text", "accepted"),
    [("true", ALL), ("false", NONE), ("int8", {"int8"}), ("float16, int8", ALL)],
)
def test_texts_name_the_precisions_that_are_accepted(text: str, accepted: frozenset[str]) -> None:
    assert read_accepted(text) == accepted
    assert read_accepted(write_accepted(text)) == accepted


@pytest.mark.parametrize("text", ["", "True", "1", "int4", "float32", "int8,", "int8;float16"])
def test_another_text_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected true, false, or precisions separated by commas"):
        read_accepted(text)


def test_what_is_accepted_is_written_as_a_text() -> None:
    assert [write_accepted(one) for one in (True, False, ["int8"], ("int8", "float16"), [])] == [
        "true", "false", "int8", "int8,float16", "false",
    ]  # fmt: skip


def served(version: Version) -> IndexEntry:
    names: dict[str, Any] = {**vars(version), "version": "1", "batcher": version.model}
    return IndexEntry(version.model, 1, State.READY, served=cast("ServedVersion", SimpleNamespace(**names)))


def test_variants_are_those_that_are_served_now() -> None:
    registry = ModelRegistry(lambda: None, most_points_lost=MOST)
    base = served(BASE).served
    assert base is not None
    registry.put(IndexEntry(BASE.model, 1, State.READY, served=base))
    assert registry.variants(base) == ()
    registry.put(served(VARIANT))
    assert [one.model for one in registry.variants(base)] == ["mnist-int8"]
    assert registry.variants(base) is registry.variants(base)  # found once
    registry.put(IndexEntry(VARIANT.model, 1, State.UNAVAILABLE))
    assert registry.variants(base) == ()
    registry.put(served(VARIANT))
    assert registry.variants(base) != ()
    registry.forget(VARIANT.model, "1")
    assert registry.variants(base) == ()
