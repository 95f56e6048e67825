"""Serve ONNX models over gRPC with dynamic batching."""

from importlib.metadata import version

__version__ = version("inferry")
