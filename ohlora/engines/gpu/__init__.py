"""Engines on a CUDA device: TensorRT, ONNX Runtime's providers, memory that they hand to each other."""
