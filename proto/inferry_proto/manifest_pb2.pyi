from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelManifest(_message.Message):
    __slots__ = ("format_version", "model_name", "precision", "signature", "labels", "preprocessing", "files", "golden_samples", "evaluation", "parity", "provenance", "gates", "latency", "quantization", "unverified", "variant_of")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    UNVERIFIED_FIELD_NUMBER: _ClassVar[int]
    VARIANT_OF_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    model_name: str
    precision: str
    signature: Signature
    labels: _containers.RepeatedScalarFieldContainer[str]
    preprocessing: Preprocessing
    files: _containers.RepeatedCompositeFieldContainer[File]
    golden_samples: GoldenSamples
    evaluation: Evaluation
    parity: Parity
    provenance: Provenance
    gates: _containers.RepeatedCompositeFieldContainer[Gate]
    latency: Latency
    quantization: Quantization
    unverified: bool
    variant_of: VariantOf
    def __init__(self, format_version: _Optional[int] = ..., model_name: _Optional[str] = ..., precision: _Optional[str] = ..., signature: _Optional[_Union[Signature, _Mapping]] = ..., labels: _Optional[_Iterable[str]] = ..., preprocessing: _Optional[_Union[Preprocessing, _Mapping]] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ..., golden_samples: _Optional[_Union[GoldenSamples, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., parity: _Optional[_Union[Parity, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., gates: _Optional[_Iterable[_Union[Gate, _Mapping]]] = ..., latency: _Optional[_Union[Latency, _Mapping]] = ..., quantization: _Optional[_Union[Quantization, _Mapping]] = ..., unverified: bool = ..., variant_of: _Optional[_Union[VariantOf, _Mapping]] = ...) -> None: ...

class VariantOf(_message.Message):
    __slots__ = ("model_name", "model_sha256")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_sha256: str
    def __init__(self, model_name: _Optional[str] = ..., model_sha256: _Optional[str] = ...) -> None: ...

class Gate(_message.Message):
    __slots__ = ("name", "outcome", "figures", "reason")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[Gate.Outcome]
        PASSED: _ClassVar[Gate.Outcome]
        NOT_APPLICABLE: _ClassVar[Gate.Outcome]
    OUTCOME_UNSPECIFIED: Gate.Outcome
    PASSED: Gate.Outcome
    NOT_APPLICABLE: Gate.Outcome
    class FiguresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    outcome: Gate.Outcome
    figures: _containers.ScalarMap[str, float]
    reason: str
    def __init__(self, name: _Optional[str] = ..., outcome: _Optional[_Union[Gate.Outcome, str]] = ..., figures: _Optional[_Mapping[str, float]] = ..., reason: _Optional[str] = ...) -> None: ...

class Latency(_message.Message):
    __slots__ = ("provider", "threads", "fixed_ms", "per_image_ms", "points")
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    FIXED_MS_FIELD_NUMBER: _ClassVar[int]
    PER_IMAGE_MS_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    provider: str
    threads: int
    fixed_ms: float
    per_image_ms: float
    points: _containers.RepeatedCompositeFieldContainer[LatencyPoint]
    def __init__(self, provider: _Optional[str] = ..., threads: _Optional[int] = ..., fixed_ms: _Optional[float] = ..., per_image_ms: _Optional[float] = ..., points: _Optional[_Iterable[_Union[LatencyPoint, _Mapping]]] = ...) -> None: ...

class LatencyPoint(_message.Message):
    __slots__ = ("batch_size", "milliseconds")
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    milliseconds: float
    def __init__(self, batch_size: _Optional[int] = ..., milliseconds: _Optional[float] = ...) -> None: ...

class Quantization(_message.Message):
    __slots__ = ("calibration_method", "calibration_images", "calibration_sha256", "float_nodes")
    CALIBRATION_METHOD_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_IMAGES_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_SHA256_FIELD_NUMBER: _ClassVar[int]
    FLOAT_NODES_FIELD_NUMBER: _ClassVar[int]
    calibration_method: str
    calibration_images: int
    calibration_sha256: str
    float_nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, calibration_method: _Optional[str] = ..., calibration_images: _Optional[int] = ..., calibration_sha256: _Optional[str] = ..., float_nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("inputs", "outputs")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "datatype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Preprocessing(_message.Message):
    __slots__ = ("color_mode", "crop", "height", "width", "filter", "scaled_jpeg")
    class ColorMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        COLOR_MODE_UNSPECIFIED: _ClassVar[Preprocessing.ColorMode]
        GRAYSCALE: _ClassVar[Preprocessing.ColorMode]
        RGB: _ClassVar[Preprocessing.ColorMode]
    COLOR_MODE_UNSPECIFIED: Preprocessing.ColorMode
    GRAYSCALE: Preprocessing.ColorMode
    RGB: Preprocessing.ColorMode
    class Filter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FILTER_UNSPECIFIED: _ClassVar[Preprocessing.Filter]
        BILINEAR: _ClassVar[Preprocessing.Filter]
        NEAREST: _ClassVar[Preprocessing.Filter]
    FILTER_UNSPECIFIED: Preprocessing.Filter
    BILINEAR: Preprocessing.Filter
    NEAREST: Preprocessing.Filter
    class CropBox(_message.Message):
        __slots__ = ("top", "left", "height", "width", "picture_height", "picture_width")
        TOP_FIELD_NUMBER: _ClassVar[int]
        LEFT_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        WIDTH_FIELD_NUMBER: _ClassVar[int]
        PICTURE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
        PICTURE_WIDTH_FIELD_NUMBER: _ClassVar[int]
        top: int
        left: int
        height: int
        width: int
        picture_height: int
        picture_width: int
        def __init__(self, top: _Optional[int] = ..., left: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., picture_height: _Optional[int] = ..., picture_width: _Optional[int] = ...) -> None: ...
    COLOR_MODE_FIELD_NUMBER: _ClassVar[int]
    CROP_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    SCALED_JPEG_FIELD_NUMBER: _ClassVar[int]
    color_mode: Preprocessing.ColorMode
    crop: Preprocessing.CropBox
    height: int
    width: int
    filter: Preprocessing.Filter
    scaled_jpeg: bool
    def __init__(self, color_mode: _Optional[_Union[Preprocessing.ColorMode, str]] = ..., crop: _Optional[_Union[Preprocessing.CropBox, _Mapping]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., filter: _Optional[_Union[Preprocessing.Filter, str]] = ..., scaled_jpeg: bool = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class GoldenSamples(_message.Message):
    __slots__ = ("file", "tolerances")
    class TolerancesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    FILE_FIELD_NUMBER: _ClassVar[int]
    TOLERANCES_FIELD_NUMBER: _ClassVar[int]
    file: str
    tolerances: _containers.ScalarMap[str, float]
    def __init__(self, file: _Optional[str] = ..., tolerances: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("dataset", "test_images", "metrics", "test_sha256", "classes")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    TEST_IMAGES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    test_images: int
    metrics: _containers.ScalarMap[str, float]
    test_sha256: str
    classes: _containers.RepeatedCompositeFieldContainer[ClassAccuracy]
    def __init__(self, dataset: _Optional[str] = ..., test_images: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., test_sha256: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[ClassAccuracy, _Mapping]]] = ...) -> None: ...

class ClassAccuracy(_message.Message):
    __slots__ = ("images", "correct")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    images: int
    correct: int
    def __init__(self, images: _Optional[int] = ..., correct: _Optional[int] = ...) -> None: ...

class Parity(_message.Message):
    __slots__ = ("images", "max_abs_difference", "max_abs_difference_limit", "label_mismatches", "label_ties")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_ABS_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    MAX_ABS_DIFFERENCE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    LABEL_MISMATCHES_FIELD_NUMBER: _ClassVar[int]
    LABEL_TIES_FIELD_NUMBER: _ClassVar[int]
    images: int
    max_abs_difference: float
    max_abs_difference_limit: float
    label_mismatches: int
    label_ties: int
    def __init__(self, images: _Optional[int] = ..., max_abs_difference: _Optional[float] = ..., max_abs_difference_limit: _Optional[float] = ..., label_mismatches: _Optional[int] = ..., label_ties: _Optional[int] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("created_at", "dataset", "dataset_sha256", "train_images", "validation_images", "seed", "config", "library_versions", "git_revision")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LibraryVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    DATASET_SHA256_FIELD_NUMBER: _ClassVar[int]
    TRAIN_IMAGES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_IMAGES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    LIBRARY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    GIT_REVISION_FIELD_NUMBER: _ClassVar[int]
    created_at: str
    dataset: str
    dataset_sha256: str
    train_images: int
    validation_images: int
    seed: int
    config: _containers.ScalarMap[str, str]
    library_versions: _containers.ScalarMap[str, str]
    git_revision: str
    def __init__(self, created_at: _Optional[str] = ..., dataset: _Optional[str] = ..., dataset_sha256: _Optional[str] = ..., train_images: _Optional[int] = ..., validation_images: _Optional[int] = ..., seed: _Optional[int] = ..., config: _Optional[_Mapping[str, str]] = ..., library_versions: _Optional[_Mapping[str, str]] = ..., git_revision: _Optional[str] = ...) -> None: ...

class VersionLabels(_message.Message):
    __slots__ = ("labels", "traffic")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class TrafficEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.ScalarMap[str, int]
    traffic: _containers.ScalarMap[str, int]
    def __init__(self, labels: _Optional[_Mapping[str, int]] = ..., traffic: _Optional[_Mapping[str, int]] = ...) -> None: ...
