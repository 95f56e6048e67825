"""Requests built and replies read: tensors, pictures, results; no gRPC."""
