"""Serve ONNX models over gRPC with dynamic batching."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("inferry")
except PackageNotFoundError:  # run from its source files, on a machine where nothing can be installed
    __version__ = "0+unknown"
