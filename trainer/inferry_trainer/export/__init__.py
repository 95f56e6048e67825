"""From a Keras model to ONNX graphs: float32, float16, int8."""
