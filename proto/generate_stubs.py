"""Generate the stubs of every contract in inferry_proto: `make protos`.

The generator is pinned (grpcio-tools 1.76, gencode 6.31.1), because stubs refuse to load
on a protobuf older than the one that generated them. They are registered in a descriptor
pool of our own: tritonclient registers the same message names in protobuf's default one,
and two registrations of a name in one pool do not load.
"""

import argparse
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).parent
PACKAGE = "inferry_proto"
DEFAULT_POOL_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
PRIVATE_POOL_IMPORT = "from inferry_proto import descriptor_pool as _descriptor_pool\n"


def main() -> None:
    """Generate into the package, or below `--out`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=PROTO_ROOT, help="root of the generated package")
    generate(parser.parse_args().out)


def generate(out: Path) -> None:
    """Write `*_pb2.py` and `*_pb2.pyi` of every `.proto` file below `out`.

    Raises:
        SystemExit: the compiler refused a file; it has said why on standard error.
    """
    sources = [str(path.relative_to(PROTO_ROOT)) for path in sorted((PROTO_ROOT / PACKAGE).glob("*.proto"))]
    includes = [PROTO_ROOT, Path(str(resources.files("grpc_tools"))) / "_proto"]
    out.mkdir(parents=True, exist_ok=True)
    arguments = [*(f"-I{path}" for path in includes), f"--python_out={out}", f"--pyi_out={out}", *sources]
    if protoc.main(["protoc", *arguments]) != 0:
        raise SystemExit(1)
    for stub in _stubs(out):
        use_private_pool(stub)


def use_private_pool(stub: Path) -> None:
    """Point a generated module at `inferry_proto.descriptor_pool` instead of protobuf's own pool."""
    text = stub.read_text()
    if DEFAULT_POOL_IMPORT not in text:
        raise SystemExit(f"{stub}: no line {DEFAULT_POOL_IMPORT!r}: has the generator changed?")
    stub.write_text(text.replace(DEFAULT_POOL_IMPORT, PRIVATE_POOL_IMPORT))


def _stubs(out: Path) -> Iterator[Path]:
    return (out / PACKAGE).glob("*_pb2.py")


if __name__ == "__main__":
    main()
