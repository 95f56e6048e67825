"""ONNX Runtime: providers, threads, sessions."""
