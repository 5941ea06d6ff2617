"""ONNX graphs in memory, and PyTorch as an engine: the only room of the runtime that imports onnx or torch."""
