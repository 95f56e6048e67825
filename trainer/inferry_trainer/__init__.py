"""Train Keras CNNs, export them to ONNX, prove that nothing changed, publish."""
