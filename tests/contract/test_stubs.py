"""The generated stubs: fresh, and able to live beside tritonclient's in one process."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from tritonclient.grpc import model_config_pb2 as triton_config_pb2
from tritonclient.grpc import service_pb2 as triton_service_pb2

from inferry_proto import model_config_pb2, open_inference_pb2

ROOT = Path(__file__).parents[2]


def test_the_committed_stubs_are_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "proto/generate_stubs.py", "--out", tmp_path], check=True)
    committed = {path.name: path.read_text() for path in (ROOT / "proto/inferry_proto").glob("*_pb2.py*")}
    generated = {path.name: path.read_text() for path in (tmp_path / "inferry_proto").glob("*_pb2.py*")}
    assert generated == committed


@pytest.mark.parametrize(
    "imports",
    [
        "import tritonclient.grpc; import inferry_proto.services",
        "import inferry_proto.services; import tritonclient.grpc",
    ],
)
def test_stubs_load_beside_tritonclient_in_either_order(imports: str) -> None:
    subprocess.run([sys.executable, "-c", imports], check=True)


def test_every_message_has_the_fields_of_tritonclient() -> None:
    compared = _compare_file(open_inference_pb2.DESCRIPTOR, triton_service_pb2.DESCRIPTOR)
    compared += _compare_file(model_config_pb2.DESCRIPTOR, triton_config_pb2.DESCRIPTOR)
    assert compared > 100  # fields; a comparison of nothing would pass as well


def test_the_model_configuration_is_tritons_whole() -> None:
    ours, theirs = model_config_pb2.DESCRIPTOR, triton_config_pb2.DESCRIPTOR
    assert set(ours.message_types_by_name) == set(theirs.message_types_by_name)
    for name, message in ours.message_types_by_name.items():
        _compare_whole(message, theirs.message_types_by_name[name])


def test_every_rpc_has_the_types_of_tritonclient() -> None:
    ours = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    theirs = triton_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert ours.full_name == theirs.full_name
    for method in ours.methods:
        twin = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == twin.input_type.full_name
        assert method.output_type.full_name == twin.output_type.full_name
        assert method.client_streaming == twin.client_streaming
        assert method.server_streaming == twin.server_streaming


def _compare_file(ours: FileDescriptor, theirs: FileDescriptor) -> int:
    for name, enum in ours.enum_types_by_name.items():
        _compare_enum(enum, theirs.enum_types_by_name[name])
    return sum(
        _compare_message(message, theirs.message_types_by_name[name])
        for name, message in ours.message_types_by_name.items()
    )


def _compare_message(ours: Descriptor, theirs: Descriptor) -> int:
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        assert _facts(field) == _facts(theirs.fields_by_name[field.name]), field.full_name
    for enum in ours.enum_types:
        _compare_enum(enum, theirs.enum_types_by_name[enum.name])
    nested = sum(_compare_message(m, theirs.nested_types_by_name[m.name]) for m in ours.nested_types)
    return len(ours.fields) + nested


def _compare_whole(ours: Descriptor, theirs: Descriptor) -> None:
    assert set(ours.fields_by_name) == set(theirs.fields_by_name), ours.full_name
    assert set(ours.nested_types_by_name) == set(theirs.nested_types_by_name), ours.full_name
    for nested in ours.nested_types:
        _compare_whole(nested, theirs.nested_types_by_name[nested.name])


def _compare_enum(ours: EnumDescriptor, theirs: EnumDescriptor) -> None:
    assert {v.name: v.number for v in ours.values} == {v.name: v.number for v in theirs.values}


def _facts(field: FieldDescriptor) -> tuple[object, ...]:
    """What decides how a field travels; and its oneof, which decides what a setter clears."""
    kind = field.message_type or field.enum_type
    return (
        field.number,
        field.type,
        field.is_repeated,
        field.has_presence,
        field.containing_oneof.name if field.containing_oneof else None,
        kind.full_name if kind else None,
    )
