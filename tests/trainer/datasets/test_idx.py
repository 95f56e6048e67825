import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.datasets.idx import IMAGES_MAGIC, LABELS_MAGIC, read_idx_images, read_idx_labels
from inferry_trainer.errors import DatasetError
from testkit.idx_files import encode_idx

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@given(images=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)))
@same_folder
def test_images_read_back_as_written(tmp_path: Path, images: UInt8Array) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(encode_idx(images))
    assert np.array_equal(read_idx_images(path), images)


@given(labels=hnp.arrays(np.uint8, st.integers(1, 50)))
@same_folder
def test_labels_read_back_as_written(tmp_path: Path, labels: UInt8Array) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(encode_idx(labels))
    assert np.array_equal(read_idx_labels(path), labels)


@given(cut=st.integers(0, len(encode_idx(IMAGES)) - 1))
@same_folder
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(encode_idx(IMAGES)[:cut])
    with pytest.raises(DatasetError, match=r"images\.gz is (truncated|not a gzip file)"):
        read_idx_images(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode_idx(IMAGES, magic=LABELS_MAGIC), "expected magic 0x00000803, 0x00000801 came; download it again"),
        (encode_idx(IMAGES, shape=(3, 3, 4)), r"is truncated: expected 36 bytes of images .*\(3, 3, 4\).*, 24 came"),
        (encode_idx(IMAGES, shape=(1, 3, 4)), "does not match its header: expected 12 bytes .* 24 came"),
        (encode_idx(IMAGES, shape=(2**32 - 1,) * 3), "is truncated"),
        (encode_idx(IMAGES[:0]), "does not match its header: expected 0 bytes"),
        (gzip.compress(struct.pack(">2I", IMAGES_MAGIC, 2), mtime=0), "expected an IDX header of 16 bytes, 8 came"),
        (b"<!DOCTYPE html><title>Quota exceeded</title>", "looks like a web page saved in its place; download"),
        (b"\x00\x00\x08\x03", "which is not gzip"),
    ],
)
def test_what_is_not_idx_is_refused_with_what_was_expected_and_what_came(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        read_idx_images(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"labels\.gz cannot be read: No such file"):
        read_idx_labels(tmp_path / "labels.gz")
