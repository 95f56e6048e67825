"""ONNX Runtime: providers, threads, sessions."""

import os

# ONNX Runtime reports its use to Microsoft unless told otherwise before it is imported. A server
# that computes on other people's data reports to nobody; whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
