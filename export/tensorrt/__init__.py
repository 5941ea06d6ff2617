"""TensorRT engines built from ONNX files."""
