"""Serve ONNX models over gRPC with dynamic batching."""
